"""The overall score made of the paper's eight criteria."""
