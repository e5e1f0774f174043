"""Everything that only makes the embedded default: painted portraits, the tiny FLUX, its judges, the ablations.

The rest of the package reaches it through files (weights, data) and, where portraits are painted on request, from
inside functions. Without this folder `mogle generate`, `mogle train --data` and `mogle evaluate --data` work as before.
"""
