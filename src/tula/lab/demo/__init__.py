"""``tula lab demo``: Direct Server Return on real traffic, told in a minute.

The chapters are in ``story``; what they show is measured (``meter``, ``load``, ``frames``), and
what they claim is checked (``claims``).
"""
