"""Simulation-based calibration: is a posterior as wide as it should be, and where it should be?"""
