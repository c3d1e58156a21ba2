"""Simulation-based calibration: are posteriors unbiased and of the right width?"""
