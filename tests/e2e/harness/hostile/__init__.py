"""Attacks on a daemon, one function each, in processes of their own. tests/e2e/test_hostile.py has the rows."""
