"""All exercises, in the order of the notebooks."""

from workbook import experts, gating, tokens

EXERCISES = {exercise.name: exercise for notebook in (tokens, experts, gating) for exercise in notebook.EXERCISES}
