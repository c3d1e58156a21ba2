"""How far each method of ``simulate`` is from a much stricter reference."""
