"""The files program: what people and their tools speak to."""
