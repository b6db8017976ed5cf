"""The judging of a mesh: statistics, verdicts, requirements and reports."""
