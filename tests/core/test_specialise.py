"""When a kernel is compiled."""

from specmd.core import specialise


def test_what_was_worth_compiling_is_not_interpreted_again(monkeypatch):
    monkeypatch.setattr(specialise, "_interpreted", {})
    monkeypatch.setattr(specialise, "_is_kept", lambda *_: False)

    def kernel():
        """Never called."""

    def is_cheaper(accesses):
        return specialise.is_cheaper_interpreted(kernel, {}, accesses)

    worth = int(specialise.COMPILING_S * specialise.INTERPRETED_PER_S)
    assert is_cheaper(worth // 2)
    assert not is_cheaper(worth)
    assert not is_cheaper(1)
    assert not is_cheaper(None)
