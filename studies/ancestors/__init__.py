"""Patients fitted with a published model and with ours, side by side."""
