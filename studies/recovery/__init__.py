"""Does a fit find again what a synthetic patient was made from, and do its intervals hold it?"""
