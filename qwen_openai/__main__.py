"""`python -m qwen_openai`: the same as the console script."""

from qwen_openai.cli import main

if __name__ == "__main__":
    main()
