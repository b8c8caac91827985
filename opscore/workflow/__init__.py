"""Workflows: what a template says, what happens next, and who carries it out."""
