"""All exercises, in the order of the notebooks."""

from workbook import experts, flux, gating, tokens

EXERCISES = {exercise.name: exercise for notebook in (tokens, flux, experts, gating) for exercise in notebook.EXERCISES}
