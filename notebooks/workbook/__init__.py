"""Beside the notebooks: the exercises of each, with solutions and checkers, and the tools of who writes notebooks."""
