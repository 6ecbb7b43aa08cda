"""From the results of a sweep to its report: tables, figures and one page."""
