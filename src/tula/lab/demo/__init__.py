"""``tula lab demo``: Direct Server Return with real traffic, in a minute.

The chapters are in ``story``. What they show is measured (``meter``, ``load``, ``frames``), and
what they claim is checked.
"""
