"""What competes: all the registry has, but for who knows the future, lacks a need, or is lossy."""

from specmd.advice.question import Question
from specmd.advice.search import Search
from specmd.advice.space import make_space, spell
from specmd.advice.trials import Trials
from specmd.policy.needs import Offer
from specmd.policy.registry import add_plugin, entries, is_lossy

PLUGIN = '''
from specmd.policy import policy


@policy("coin", source="a test", lossy=True)
class Coin:
    """Ranks alike."""

    @classmethod
    def create(cls, world, *, side: bool = True):
        """Build it."""
        return cls()

    def rank(self, key, event):
        """Rank nobody higher."""
        return 0.0
'''


def test_every_policy_competes_or_has_a_reason():
    space = make_space(Offer(), layers=8)
    for entry in entries():
        competes = any(name.split(":")[0] == entry.name for name in space.candidates[entry.axis])
        assert competes != (f"{entry.axis} {entry.name}" in space.skipped)


def test_nobody_who_knows_the_future_competes():
    space = make_space(Offer(training=True, lookahead=4), layers=8)
    assert {name for name, why in space.skipped.items() if "future" in why} == {
        f"{entry.axis} {entry.name}" for entry in entries() if "future" in entry.needs
    }
    assert all(name.startswith("oracle") for name in space.perfect)


def test_compositions_are_distinct_and_the_default_comes_first():
    found = list(make_space(Offer(), layers=8).compositions())
    assert len(set(found)) == len(found)
    assert spell(found[0]) == "lru global"


def test_depths_stay_within_the_model_and_the_scores():
    ahead = make_space(Offer(lookahead=1), layers=3).candidates["prefetch"]
    assert "next_gate" in ahead
    assert "next_gate:depth=2" not in ahead  # the scores reach one layer
    assert "prev_token:depth=2" in ahead
    assert "prev_token:depth=4" not in ahead


def test_lossy_policies_compete_where_their_quality_is_known(tmp_path, one_trace):
    file = tmp_path / "coin.py"
    file.write_text(PLUGIN)
    add_plugin(file)
    without = make_space(Offer(), layers=8)
    assert "lossy" in without.skipped["evict coin"]
    admitted = make_space(Offer(), layers=8, lossy=True)
    assert {"coin", "coin:side=false"} <= set(admitted.candidates["evict"])
    asked = Question("8MB", ("t4",), quality=0.99)
    coin = next(each for each in admitted.compositions() if each[0] == "coin")
    (config,) = asked.configs(one_trace, [coin])
    assert is_lossy(config)
    with Trials(one_trace) as trials:  # a simulation does not know what it keeps
        search = Search(asked, one_trace, one_trace, admitted, trials)
        assert search._try([coin], 20, "", lambda *_: None) == []
