"""The simulator: the machines of this package on a virtual clock and a modelled network.

Its one rule: one seed decides everything. The same seed gives the same trace, byte for
byte, whatever PYTHONHASHSEED is and in whatever order questions are asked.

`network` models the underlay's delays, `rules` injects faults, and `checkers` say what a
legitimate overlay is without sharing code with the protocols that they judge.
"""
