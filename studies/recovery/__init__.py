"""Parameter recovery: do fits of synthetic patients and their intervals find the true values?"""
