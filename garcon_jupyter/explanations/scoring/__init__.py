"""How well an explanation predicts a unit.

Not here: who explains, and what is kept.

``scores``         the formulas
``calibration``    from levels to values
``simulating``     levels of a text, as a language model says them
``by_simulation``  those compared with what the unit does
``judging``        detection, fuzzing, intruders, pairs: scores without a simulation
"""
