"""SpecMD: which expert cache should I run?"""

__version__ = "0.1.0"
