"""Run one benchmark, or list them: ``python -m benchmarks [NAME [ARGUMENTS]]``."""

import ast
import importlib
import sys
from difflib import get_close_matches
from pathlib import Path


def benchmark_names() -> dict[str, str]:
    """Each benchmark and the first line of its docstring, read from the source: to list them imports none."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        has_main = any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body)
        if has_main and path.stem != "__main__":
            found[path.stem] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return found


def main(argv: list[str]) -> int:
    known = benchmark_names()
    if not argv or argv[0] in ("-h", "--help"):
        print("python -m benchmarks NAME [ARGUMENTS], where NAME is one of\n")
        width = max(map(len, known), default=0)
        for name, purpose in known.items():
            print(f"  {name:<{width}}  {purpose}")
        return 0
    name, *arguments = argv
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known are: {', '.join(known)}."
        print(f"There is no benchmark {name!r}. {hint}", file=sys.stderr)
        return 2
    return importlib.import_module(f"benchmarks.{name}").main(arguments) or 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
