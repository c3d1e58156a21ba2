"""What the model says of virtual cohorts and real patients, beside what was published."""
