"""What `doctor` makes of what it sees: pure rules, from facts to findings.

`facts.py` holds what was read, `checks.py` lists what is judged, and the other files judge.
"""
