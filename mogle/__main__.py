"""`python -m mogle` is `mogle`; `torchrun --nproc-per-node 2 -m mogle ...` starts it in several processes."""

from mogle.cli import main

if __name__ == "__main__":
    main()
