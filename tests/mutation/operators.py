"""The mutants of a source text: small changes of its code, found in its syntax tree and made in its text.

Only code is changed that can decide something. Docstrings, annotations, texts, assertions, log calls, the arguments of
a raised exception, `__repr__`, `__str__`, `TYPE_CHECKING`, overloads, protocols and checks of the platform are left
alone. Nothing here runs code.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from typing import NamedTuple

_BOUNDARY = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
_OPPOSITE = {
    ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr,
}  # fmt: skip
_SYMBOLS = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=", ast.Is: "is",
    ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in", ast.Add: "+", ast.Sub: "-", ast.Mult: "*",
    ast.FloorDiv: "//", ast.Div: "/", ast.Mod: "%", ast.LShift: "<<", ast.RShift: ">>", ast.BitAnd: "&",
    ast.BitOr: "|", ast.BitXor: "^", ast.And: "and", ast.Or: "or",
}  # fmt: skip
_SMALL = 16
"""The largest number that is changed by one."""
_SWAPPED_CALLS = {"min": "max", "max": "min", "any": "all", "all": "any"}
_TYPING_DECORATORS = {"overload", "override", "final", "abstractmethod", "property", "runtime_checkable"}
_TYPING_CALLS = {"cast", "TypeVar", "ParamSpec", "NewType", "isinstance", "issubclass", "Annotated"}
_LOG_METHODS = {"debug", "info", "warning", "error", "exception", "critical", "warn"}
_TEXT_METHODS = {"__repr__", "__str__", "__rich__"}
_Function = ast.FunctionDef | ast.AsyncFunctionDef


class Mutant(NamedTuple):
    """One change of a text: its bytes from `start` up to `end` become `new`."""

    operator: str
    start: int
    end: int
    new: str
    first_line: int
    """The first line of the smallest statement around it."""
    last_line: int
    """The last line of that statement, or of its head."""
    where: str
    """The function and class around it, as `Members.declare`; empty on the level of the module."""


def mutants(text: str) -> list[Mutant]:
    """Return the mutants of a source text, in order of their place. Not all of them need compile (`compiles`)."""
    finder = _Finder(text)
    finder.visit(ast.parse(text))
    return sorted(set(finder.found), key=lambda one: (one.start, one.end, one.operator, one.new))


def mutated(text: str, mutant: Mutant) -> str:
    """Return the text with the mutant in it."""
    raw = text.encode()
    return (raw[: mutant.start] + mutant.new.encode() + raw[mutant.end :]).decode()


def compiles(text: str, mutant: Mutant) -> bool:
    """Return whether the text with the mutant in it is Python, and not the same code."""
    try:
        return ast.dump(ast.parse(mutated(text, mutant))) != ast.dump(ast.parse(text))
    except SyntaxError:
        return False


class _Finder(ast.NodeVisitor):
    """Collects the mutants; a visitor that does not visit a part leaves it alone."""

    def __init__(self, text: str) -> None:
        self.found: list[Mutant] = []
        self._raw = text.encode()
        self._starts = [0]
        for line in self._raw.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._lines = (1, 1)
        self._names: list[str] = []
        self._functions = 0

    # places in the text

    def _start(self, node: ast.expr | ast.stmt) -> int:
        return self._starts[node.lineno - 1] + node.col_offset

    def _end(self, node: ast.expr | ast.stmt) -> int:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self._starts[node.end_lineno - 1] + node.end_col_offset

    def _source(self, node: ast.expr | ast.stmt) -> str:
        return self._raw[self._start(node) : self._end(node)].decode()

    def _add(self, operator: str, start: int, end: int, new: str) -> None:
        self.found.append(Mutant(operator, start, end, new, *self._lines, ".".join(self._names)))

    def _replace(self, operator: str, node: ast.expr | ast.stmt, new: str) -> None:
        self._add(operator, self._start(node), self._end(node), new)

    def _between(self, operator: str, left: ast.expr, right: ast.expr, old: str, new: str) -> None:
        """Replace the symbol between two operands, which may be in brackets."""
        start, end = self._end(left), self._start(right)
        gap = self._raw[start:end].decode()
        place = gap.find(old)
        if place >= 0 and "#" not in gap:
            self._add(operator, start + place, start + place + len(old), new)

    # statements

    def visit(self, node: ast.AST) -> None:
        """Visit a node; a statement sets the lines of the mutants in it."""
        if not isinstance(node, ast.stmt):
            super().visit(node)
            return
        before = self._lines
        body = getattr(node, "body", None)
        decorators = getattr(node, "decorator_list", None) or []
        first = min([node.lineno, *(one.lineno for one in decorators)])
        last = body[0].lineno - 1 if isinstance(body, list) and body else node.end_lineno or first
        self._lines = (first, max(last, node.lineno))
        super().visit(node)
        self._lines = before

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Visit the body, not the bases and keywords; a protocol has no code."""
        if any("Protocol" in ast.unparse(base) for base in node.bases):
            return
        self._names.append(node.name)
        for statement in node.body:
            self.visit(statement)
        self._names.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Visit defaults and body; a decorator is dropped."""
        self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        """Visit defaults and body; a decorator is dropped."""
        self._function(node)

    def _function(self, node: _Function) -> None:
        decorators = {ast.unparse(one).split("(")[0].split(".")[-1] for one in node.decorator_list}
        if node.name in _TEXT_METHODS or "overload" in decorators:
            return
        self._names.append(node.name)
        for one in node.decorator_list:
            if ast.unparse(one).split("(")[0].split(".")[-1] not in _TYPING_DECORATORS:
                self._add("drop decorator", self._start(one) - 1, self._end(one), "")
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                self.visit(default)
        self._functions += 1
        for statement in node.body:
            self.visit(statement)
        self._functions -= 1
        self._names.pop()

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """Visit the value, not the annotation."""
        if node.value is not None and "TypeAlias" not in ast.unparse(node.annotation):
            self._dropped_assignment(node, node.target)
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        """Drop an assignment to an attribute or item, which somebody else may read."""
        if any(isinstance(one, ast.Name) and one.id.startswith("__") for one in node.targets):
            return
        self._dropped_assignment(node, node.targets[0])
        for one in (*node.targets, node.value):
            self.visit(one)

    def _dropped_assignment(self, node: ast.stmt, target: ast.expr) -> None:
        if self._functions and isinstance(target, ast.Attribute | ast.Subscript):
            self._replace("drop assignment", node, "pass")

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        """Change the operator, or drop the statement."""
        if (other := _ARITHMETIC.get(type(node.op))) is not None:
            old, new = _SYMBOLS[type(node.op)], _SYMBOLS[other]
            self._between("arithmetic", node.target, node.value, f"{old}=", f"{new}=")
        self._replace("drop assignment", node, "pass")
        self.visit(node.target)
        self.visit(node.value)

    def visit_Expr(self, node: ast.Expr) -> None:
        """Drop a call; a text of its own is documentation, a yield is left."""
        value = node.value.value if isinstance(node.value, ast.Await) else node.value
        if isinstance(value, ast.Constant) or (isinstance(value, ast.Call) and _logs(value)):
            return
        if isinstance(value, ast.Call):
            self._replace("drop call", node, "pass")
        self.visit(node.value)

    def visit_Delete(self, node: ast.Delete) -> None:
        """Drop a deletion."""
        self._replace("drop deletion", node, "pass")

    def visit_Raise(self, node: ast.Raise) -> None:
        """Drop a raise; its exception is text."""
        self._replace("drop raise", node, "pass")

    def visit_Return(self, node: ast.Return) -> None:
        """Return None instead of a value."""
        if node.value is not None:
            if not (isinstance(node.value, ast.Constant) and node.value.value is None):
                self._replace("return None", node, "return None")
            self.visit(node.value)

    def visit_Break(self, node: ast.Break) -> None:
        """Continue instead."""
        self._replace("break and continue", node, "continue")

    def visit_Continue(self, node: ast.Continue) -> None:
        """Break instead."""
        self._replace("break and continue", node, "break")

    def visit_Assert(self, node: ast.Assert) -> None:
        """Leave assertions alone: they are for the type checker, or end a run that is wrong already."""

    def visit_If(self, node: ast.If) -> None:
        """Negate the condition."""
        test = ast.unparse(node.test)
        if "TYPE_CHECKING" in test or "__name__" in test or "sys.platform" in test or "version_info" in test:
            return
        self._condition(node.test)
        self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        """Negate the condition."""
        if not isinstance(node.test, ast.Constant):
            self._condition(node.test)
        self.generic_visit(node)

    # expressions

    def visit_IfExp(self, node: ast.IfExp) -> None:
        """Negate the condition."""
        self._condition(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        """Negate the conditions."""
        for test in node.ifs:
            self._condition(test)
        self.generic_visit(node)

    def _condition(self, test: ast.expr) -> None:
        """Negate a condition that is not one comparison or a `not`, whose own mutants do the same."""
        if not isinstance(test, ast.Compare) and not (isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)):
            self._replace("negate condition", test, f"not ({self._source(test)})")

    def visit_Compare(self, node: ast.Compare) -> None:
        """Replace each operator by its opposite, and move a boundary by one."""
        operands = [node.left, *node.comparators]
        for left, right, operator in zip(operands, node.comparators, node.ops, strict=False):
            kind, old = type(operator), _SYMBOLS[type(operator)]
            self._between("comparison", left, right, old, _SYMBOLS[_OPPOSITE[kind]])
            if kind in _BOUNDARY:
                self._between("boundary", left, right, old, _SYMBOLS[_BOUNDARY[kind]])
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        """Swap `and` with `or` at each place, with the brackets that keep the rest as it is; drop an operand."""
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        parts = [f"({self._source(one)})" for one in node.values]
        for number in range(1, len(parts)):
            left, right = f" {old} ".join(parts[:number]), f" {old} ".join(parts[number:])
            self._replace("and and or", node, f"(({left}) {new} ({right}))")
        for number in range(len(parts)):
            kept = [part for other, part in enumerate(parts) if other != number]
            self._replace("drop operand", node, f"({f' {old} '.join(kept)})")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        """Drop a `not`, a minus or an inversion."""
        if not isinstance(node.op, ast.UAdd):
            operator = "drop not" if isinstance(node.op, ast.Not) else "arithmetic"
            self._replace(operator, node, f"({self._source(node.operand)})")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        """Replace the operator, unless it builds a type or a text."""
        if _builds_text(node) or (isinstance(node.op, ast.BitOr) and _builds_type(node)):
            return
        if (other := _ARITHMETIC.get(type(node.op))) is not None:
            self._between("arithmetic", node.left, node.right, _SYMBOLS[type(node.op)], _SYMBOLS[other])
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        """Change a small number by one, double any other, and swap True and False.

        Large numbers and fractions are limits and times: one more or less would only be a mutant that nothing can find.
        """
        if isinstance(node.value, bool):
            self._replace("constant", node, str(not node.value))
        elif isinstance(node.value, int | float) and not isinstance(node.value, bool):
            source = self._source(node)
            if isinstance(node.value, int) and node.value <= _SMALL:
                self._replace("constant", node, f"({source} + 1)")
                self._replace("constant", node, f"({source} - 1)")
            else:
                self._replace("constant", node, f"({source} * 2)")

    def visit_Call(self, node: ast.Call) -> None:
        """Drop a keyword; swap `min` with `max`, and `any` with `all`."""
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in _TYPING_CALLS or _logs(node) or ast.unparse(node.func) == "warnings.warn":
            return
        if isinstance(node.func, ast.Name) and name in _SWAPPED_CALLS:
            self._replace("call", node.func, _SWAPPED_CALLS[name])
        for keyword in node.keywords:
            if keyword.arg is not None:
                self._drop_keyword(node, keyword)
        self.generic_visit(node)

    def _drop_keyword(self, node: ast.Call, keyword: ast.keyword) -> None:
        start = self._starts[keyword.lineno - 1] + keyword.col_offset
        end = self._end(keyword.value)
        while self._raw[end : end + 1] == b")" and end < self._end(node) - 1:  # brackets around the value
            end += 1
        rest = self._raw[end : self._end(node)].decode()
        comma = len(rest) - len(rest.lstrip()) + 1 if rest.lstrip().startswith(",") else 0
        self._add("drop keyword", start, end + comma, "")

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Leave texts alone."""

    def visit_Lambda(self, node: ast.Lambda) -> None:
        """Visit the body."""
        self.visit(node.body)


def _logs(node: ast.Call) -> bool:
    function = node.func
    if not isinstance(function, ast.Attribute) or function.attr not in _LOG_METHODS:
        return False
    return "log" in ast.unparse(function.value).lower()


def _any_of(node: ast.expr, test: Callable[[ast.expr], bool]) -> bool:
    return any(test(one) for one in _operands(node))


def _operands(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.BinOp):
        yield from _operands(node.left)
        yield from _operands(node.right)
    else:
        yield node


def _builds_text(node: ast.BinOp) -> bool:
    def is_text(one: ast.expr) -> bool:
        return isinstance(one, ast.JoinedStr) or (isinstance(one, ast.Constant) and isinstance(one.value, str | bytes))

    return _any_of(node, is_text)


def _builds_type(node: ast.BinOp) -> bool:
    def is_type(one: ast.expr) -> bool:
        none = isinstance(one, ast.Constant) and one.value is None
        name = one.id if isinstance(one, ast.Name) else getattr(one, "attr", "")
        return none or name in ("int", "str", "bytes", "float", "bool", "list", "dict") or name.istitle()

    return _any_of(node, is_type)
