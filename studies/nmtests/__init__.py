"""NONMEM's own answers to public dosing scenarios, beside this package's."""
