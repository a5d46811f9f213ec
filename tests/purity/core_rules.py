"""The rules that keep `mpreg_proto` pure: the checker reads source text and returns complaints.

It parses a module and never imports it. The rules: a module imports only modules of an allow-list; it uses nothing that
differs from one process to the next (`hash`, `id`, a clock, a file); and it walks nothing without a fixed order (a set)
where the order could show. The checker has no types except the annotations it reads, so it is a check, not a proof. The
test in a child interpreter is the other half.
"""

import ast
from collections.abc import Iterable, Iterator

ALLOWED = frozenset(
    "__future__ abc base64 bisect collections contextlib dataclasses datetime decimal enum functools hashlib heapq "
    "itertools json math operator re struct types typing msgpack msgspec mpreg_proto".split()
)
ALLOWED_IN = {
    "mpreg_proto/__init__.py": frozenset({"importlib"}),
    "mpreg_proto/cluster/index.py": frozenset({"difflib"}),
    "mpreg_proto/rng.py": frozenset({"random"}),
}

# Addresses and salted hashes differ from run to run; the rest does I/O or hides imports.
REFUSED_NAMES = frozenset("hash id open print input breakpoint exec eval compile __import__".split())
REFUSED_CALLS = frozenset("now utcnow today".split())
# `random.Random` with a seed is arithmetic; `random.random` and the like share one generator of the whole process.
RANDOM_NAMES = frozenset({"Random"})

SET_NAMES = frozenset("set frozenset Set AbstractSet MutableSet".split())
SET_METHODS = frozenset("union intersection difference symmetric_difference".split())
SET_OPERATORS = (ast.BitOr, ast.BitAnd, ast.Sub, ast.BitXor)
ORDER_SHOWS = frozenset("list tuple enumerate iter zip map filter reversed deque chain dict join extend".split())


class SetNames:
    """The variables and attributes that are annotated only as sets, over all modules passed to `read`."""

    def __init__(self) -> None:
        self._sets: set[str] = set()
        self._others: set[str] = set()

    def read(self, tree: ast.Module) -> None:
        """Record the attributes that classes declare and `self.x: set[...]` assigns."""
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                for statement in node.body:
                    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                        self._learn(statement.target.id, statement.annotation)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Attribute):
                self._learn(node.target.attr, node.annotation)

    def _learn(self, name: str, annotation: ast.expr) -> None:
        (self._sets if is_set_annotation(annotation) else self._others).add(name)

    def __contains__(self, attribute: str) -> bool:
        return attribute in self._sets and attribute not in self._others


def is_set_annotation(annotation: ast.expr) -> bool:
    """Return whether an annotation is `set`, `frozenset[str]`, `AbstractSet[...]` or similar."""
    outer = annotation.value if isinstance(annotation, ast.Subscript) else annotation
    name = outer.attr if isinstance(outer, ast.Attribute) else outer.id if isinstance(outer, ast.Name) else ""
    return name in SET_NAMES


def complaints(path: str, source: str, attributes: SetNames) -> list[str]:
    """Return every breach of the rules in one module, as `path:line: what`; an empty list if there is none.

    path: relative to the repository, with forward slashes. attributes: the sets that all modules of the core declare.
    Raises SyntaxError for text that is not Python.
    """
    tree = ast.parse(source, path)
    found = [*_imports(tree, ALLOWED | ALLOWED_IN.get(path, frozenset())), *_names(tree), *_set_walks(tree, attributes)]
    return [f"{path}:{line}: {what}" for line, what in sorted(found)]


def _imports(tree: ast.Module, allowed: frozenset[str]) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules = [node.module or ""]
            if node.module == "random":
                loose = [alias.name for alias in node.names if alias.name not in RANDOM_NAMES]
                yield from ((node.lineno, f"random.{name} is global") for name in loose)
        else:
            continue
        for module in modules:
            if module.partition(".")[0] not in allowed:
                yield node.lineno, f"imports {module}"


def _names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in REFUSED_NAMES:
            yield node.lineno, f"uses {node.id}"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "random":
            if node.attr not in RANDOM_NAMES:
                yield node.lineno, f"random.{node.attr} is global"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in REFUSED_CALLS:
            yield node.lineno, f"reads a clock with .{node.func.attr}()"


def _set_walks(tree: ast.Module, attributes: SetNames) -> Iterator[tuple[int, str]]:
    for scope, nodes in _scopes(tree):
        known = _set_variables(scope, nodes)
        for node in nodes:
            for walked in _walked(node):
                if _is_set(walked, known, attributes):
                    yield walked.lineno, f"the order of a set shows: {ast.unparse(walked)}"


def _scopes(tree: ast.Module) -> Iterator[tuple[ast.AST, list[ast.AST]]]:
    """Yield each function and the module, with its own nodes (an inner function's nodes belong to that function)."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        scope = waiting.pop()
        own: list[ast.AST] = []
        inner = list(ast.iter_child_nodes(scope))
        while inner:
            node = inner.pop()
            own.append(node)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                waiting.append(node)
            else:
                inner.extend(ast.iter_child_nodes(node))
        yield scope, own


def _set_variables(scope: ast.AST, nodes: Iterable[ast.AST]) -> frozenset[str]:
    """Return the parameters and local variables of a scope that are sets: by annotation or by every assigned value."""
    sets: set[str] = set()
    others: set[str] = set()
    if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef):
        for argument in [*scope.args.posonlyargs, *scope.args.args, *scope.args.kwonlyargs]:
            if argument.annotation is not None:
                (sets if is_set_annotation(argument.annotation) else others).add(argument.arg)
    for node in nodes:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            (sets if is_set_annotation(node.annotation) else others).add(node.target.id)
        elif isinstance(node, ast.Assign):
            literal = _is_set(node.value, frozenset(), SetNames())
            for target in node.targets:
                if isinstance(target, ast.Name):
                    (sets if literal else others).add(target.id)
    return frozenset(sets - others)


def _walked(node: ast.AST) -> list[ast.expr]:
    """Yield what a node walks in an order that can show."""
    if isinstance(node, ast.For | ast.comprehension):
        return [node.iter]
    if isinstance(node, ast.Starred | ast.YieldFrom):
        return [node.value]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr == "pop" and not node.args:  # which element of a set comes out is not fixed either
            return [node.func.value]
        return list(node.args) if node.func.attr in ORDER_SHOWS else []
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ORDER_SHOWS:
        return list(node.args)
    return []


def _is_set(node: ast.expr, variables: frozenset[str], attributes: SetNames) -> bool:
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    if isinstance(node, ast.Name):
        return node.id in variables
    if isinstance(node, ast.Attribute):
        return node.attr in attributes
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name):
            return node.func.id in ("set", "frozenset")
        return isinstance(node.func, ast.Attribute) and node.func.attr in SET_METHODS
    if isinstance(node, ast.BinOp) and isinstance(node.op, SET_OPERATORS):
        return any(_is_set(side, variables, attributes) or _is_view(side) for side in (node.left, node.right))
    return False


def _is_view(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("keys", "items")
