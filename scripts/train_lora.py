"""Train a LoRA adapter from the corrections in the database: `lyra-nli train`, as a script.

python scripts/train_lora.py --force --reason "first adapter"
"""

from lyra_nli.cli.main import main

if __name__ == "__main__":
    import sys

    sys.argv.insert(1, "train")
    main()
