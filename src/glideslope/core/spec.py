"""Spec: every schedule, plan and policy ⇄ text ⇄ JSON, exactly. Built on the registry; nothing is evaluated.

The text form::

    policy   = schedule or plan [ "|" controller ]        rex | plateau(patience=5)
    schedule = term [ "@" sampling ] { "+" modifier }     rex(beta=0.9) @ plateaus(4) + warmup(10%)
    term     = name [ "(" arguments ")" ] | "(" schedule ")"
    modifier = warmup(share, start=0.1) | delay(share) | floor(share)

Names are those of the registry and of the catalog. Numbers may be shares ("10%") or budgets ("500ba", "1h30m").
What is a text itself, such as a path, stands in double quotes, as in JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from decimal import Decimal
from typing import Any, cast

from glideslope.core import catalog
from glideslope.core.budget import UNITS, Budget, parse_budget
from glideslope.core.control import Controller
from glideslope.core.estimators import Estimator
from glideslope.core.plan import Plan, Relative
from glideslope.core.policy import Policy
from glideslope.core.profiles import Multiplier
from glideslope.core.sampling import EveryStep, Sampling
from glideslope.core.schedule import Schedule, Warmup
from glideslope.core.value import Value, members, unknown

# ---------------------------------------------------------------- value → text


def to_text(value: object) -> str:
    """The one text of a value; `parse_policy`, `parse_plan` and `parse_schedule` read it back exactly.

    >>> from glideslope.core.profiles import Rex
    >>> from glideslope.core.sampling import Plateaus
    >>> to_text(Schedule(Rex(beta=0.9), Plateaus(10), warmup=0.1))
    'rex(beta=0.9) @ plateaus(10) + warmup(0.1)'
    """
    if isinstance(value, Budget):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, tuple):
        items = [to_text(item) for item in value]
        return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"
    if isinstance(value, Schedule):
        return _schedule_text(value)
    if isinstance(value, Plan):
        courses = [f"{name}={to_text(course)}" for name, course in value.courses]
        preamble = [f"preamble={to_text(value.preamble)}"] if value.preamble else []
        return f"plan({', '.join(courses + preamble)})"
    if isinstance(value, Policy):
        only = value.plan.courses[0]
        bare = len(value.plan.courses) == 1 and only[0] == "lr" and isinstance(only[1], Relative)
        plan = to_text(only[1].schedule) if bare and value.plan.preamble is None else to_text(value.plan)
        return f"{plan} | {to_text(value.controller)}" if value.controller else plan
    if isinstance(value, Value) and value.spec_name:
        arguments = _arguments_text(value)
        return f"{value.spec_name}({', '.join(arguments)})" if arguments else value.spec_name
    way_out = " Give its class a name with `@registered(…)`." if isinstance(value, Value) else ""
    raise TypeError(f"a {type(value).__name__} has no text form.{way_out}")


def _arguments_text(value: Value) -> list[str]:
    """Required fields by position, the others by name and only where they differ from their default."""
    texts = []
    for field in fields(value):
        content = getattr(value, field.name)
        if field.name == value.variadic:
            texts += [to_text(item) for item in content]
        elif _is_required(field):
            texts.append(to_text(content))
        elif content != field.default:
            texts.append(f"{field.name}={to_text(content)}")
    return texts


def _is_required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _schedule_text(value: Schedule) -> str:
    inner = to_text(value.profile)
    text = f"({inner})" if isinstance(value.profile, Schedule) else inner
    bare = text
    if value.sampling != EveryStep():
        text += f" @ {to_text(value.sampling)}"
    if value.warmup != Warmup(0.0):
        text += f" + {to_text(value.warmup)}"
    if value.delay:
        text += f" + delay({to_text(value.delay)})"
    if value.floor:
        text += f" + floor({to_text(value.floor)})"
    return f"schedule({inner})" if text == bare else text


# ---------------------------------------------------------------- text → value


def parse(text: str) -> Multiplier | Plan | Policy:
    """The value of a text: a schedule if it is one, else a plan, else a policy.

    >>> parse("rex(beta=0.9) @ plateaus(10)")
    Schedule(profile=Rex(beta=0.9), sampling=Plateaus(n=10), warmup=Warmup(share=0.0, start=0.1), delay=0.0, floor=0.0)
    """
    value = _Parser(text).whole()
    if not isinstance(value, (Multiplier, Plan, Policy)):
        raise ValueError(f"{text!r} is a {type(value).__name__.lower()}, not a schedule, plan or policy.")
    return value


def parse_estimator(estimator: str | Estimator) -> Estimator:
    """The estimator of a text; an estimator is returned as it is. Its name may be written with hyphens: "wsd-s".

    >>> parse_estimator("cooldown(0.2)")
    Cooldown(fraction=0.2, profile=OneMinusSqrt())
    """
    if isinstance(estimator, Estimator):
        return estimator
    match = re.fullmatch(r"\s*([A-Za-z_][\w-]*)\s*(\(.*\))?\s*", estimator)
    if match is None:
        raise ValueError(f"cannot read {estimator!r}. Write the name of an estimator, or name(argument=value, …).")
    name, arguments = match.groups()
    parser = _Parser(arguments or "()")
    positional, named = parser.arguments(_ESTIMATOR_PARTS)
    parser.end()
    return cast(Estimator, _construct(name.replace("-", "_"), members("estimator"), positional, named, "estimator"))


def split_texts(texts: str) -> tuple[str, ...]:
    """Take a list of texts apart at its commas, but not inside parentheses.

    >>> split_texts("rex, sequence((rex, linear)), linear")
    ('rex', 'sequence((rex, linear))', 'linear')
    """
    parts, depth, quoted = [""], 0, False
    for character in texts:
        quoted ^= character == '"'
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0 and not quoted:
            parts.append("")
        else:
            parts[-1] += character
    return tuple(part.strip() for part in parts if part.strip())


def parse_call(text: str) -> tuple[str, dict[str, Any]]:
    """A name with named arguments, for values that live outside core: optimizers, tasks.

    >>> parse_call("sgdm(momentum=0.95)")
    ('sgdm', {'momentum': 0.95})
    >>> parse_call("package.module:Name")
    ('package.module:Name', {})
    """
    match = re.fullmatch(r"\s*([A-Za-z_][\w.:-]*)\s*(\(.*\))?\s*", text)
    if match is None:
        raise ValueError(f"cannot read {text!r}. Write a name, or name(argument=value, …).")
    name, arguments = match.groups()
    if arguments is None:
        return name, {}
    parser = _Parser(arguments)
    positional, named = parser.arguments(_SCHEDULE_KINDS)
    parser.end()
    if positional:
        raise ValueError(f"the arguments of {name} need names: {name}(argument={positional[0]!r}).")
    return name, named


def parse_schedule(schedule: str | Multiplier) -> Multiplier:
    """The schedule of a text; a schedule is returned as it is."""
    value = parse(schedule) if isinstance(schedule, str) else schedule
    if not isinstance(value, Multiplier):
        raise ValueError(
            f"{schedule!r} is a {value.kind} and does more than scale one value; a schedule is needed here."
        )
    return value


def parse_plan(plan: str | Multiplier | Plan) -> Plan:
    """The plan of a text; a schedule becomes the plan of the learning rate."""
    value = parse(plan) if isinstance(plan, str) else plan
    if isinstance(value, Policy):
        raise ValueError(f"{plan!r} needs a controller ({value.controller}); a plan is needed here.")
    return value if isinstance(value, Plan) else Plan({"lr": value})


def parse_policy(policy: str | Multiplier | Plan | Policy) -> Policy:
    """The policy of a text; a schedule or a plan becomes a policy without controller.

    >>> parse_policy("constant | plateau(patience=10)").controller
    Plateau(patience=10, factor=0.1, threshold=0.0001)
    """
    value = parse(policy) if isinstance(policy, str) else policy
    return value if isinstance(value, Policy) else Policy(parse_plan(value))


_TOKEN = re.compile(
    rf"""\s*(?:
    (?P<budget>(?:[0-9.]+(?:e[+-]?[0-9]+)?(?:{UNITS}))+(?:\*[0-9]+ba)?)
  | (?P<share>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?%)
  | (?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?)
  | (?P<string>"(?:[^"\\]|\\.)*")
  | (?P<name>[a-z_][a-z_0-9]*)
  | (?P<mark>[()=,@+|])
)""",
    re.VERBOSE | re.IGNORECASE,
)
_MODIFIERS = ("warmup", "delay", "floor", "preamble")
_SCHEDULE_KINDS = ("profile", "schedule", "sampling", "course", "plan", "preamble", "warmup")
_ESTIMATOR_PARTS = (*_SCHEDULE_KINDS, "average")


class _Parser:
    """Recursive descent over the grammar at the top of this file."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[tuple[str, str, int]] = []
        position = 0
        while text[position:].strip():
            match = _TOKEN.match(text, position)
            if match is None or match.lastgroup is None:
                raise self._error("cannot read", position)
            self.tokens.append((match.lastgroup, match.group(match.lastgroup), match.start(match.lastgroup)))
            position = match.end()
        self.tokens.append(("end", "", len(text)))
        self.next = 0

    def _error(self, what: str, column: int) -> ValueError:
        return ValueError(f"{what} at column {column + 1} of {self.text!r}.")

    def _peek(self, mark: str) -> bool:
        kind, token, _ = self.tokens[self.next]
        return kind == "mark" and token == mark

    def _take(self, mark: str) -> bool:
        if self._peek(mark):
            self.next += 1
            return True
        return False

    def _expect(self, mark: str) -> None:
        if not self._take(mark):
            _, token, column = self.tokens[self.next]
            raise self._error(f"expected {mark!r}, found {token!r}" if token else f"expected {mark!r}", column)

    def whole(self) -> Any:
        value = self._expression()
        if self._take("|"):
            if isinstance(value, Policy):
                raise ValueError(f"{self.text!r} has two controllers: {value} brings its own.")
            if not isinstance(value, (Multiplier, Plan)):
                raise ValueError(f"what stands before '|' in {self.text!r} must be a schedule or plan.")
            controller = self._value(("controller",))
            if not isinstance(controller, Controller):
                raise ValueError(f"what stands behind '|' in {self.text!r} must be a controller.")
            value = Policy(parse_plan(value), controller)
        self.end()
        return value

    def end(self) -> None:
        kind, token, column = self.tokens[self.next]
        if kind != "end":
            raise self._error(f"did not expect {token!r}", column)

    def _expression(self, kinds: tuple[str, ...] = _SCHEDULE_KINDS) -> Any:
        value = self._value(kinds)
        settings: dict[str, Any] = {}
        if self._take("@"):
            settings["sampling"] = self._value(("sampling",))
        # "+5" is read as one number, so a modifier's sign is always a mark of its own followed by a name.
        while self._take("+"):
            _, name, column = self.tokens[self.next]
            if name not in _MODIFIERS:
                raise unknown("modifier", name, _MODIFIERS) if name else self._error("expected a modifier", column)
            if name in settings:
                raise self._error(f"{name} stands twice", column)
            self.next += 1
            positional, named = self.arguments(_SCHEDULE_KINDS)
            if name in ("warmup", "preamble"):
                settings[name] = _construct(name, members(name), positional, named)
            elif len(positional) == 1 and not named:
                settings[name] = positional[0]
            else:
                raise self._error(f"{name} takes one share of the budget", column)
        return _modified(value, settings, self.text) if settings else value

    def _value(self, kinds: tuple[str, ...]) -> Any:
        kind, token, column = self.tokens[self.next]
        self.next += 1
        if kind == "number":
            return int(token) if re.fullmatch(r"[+-]?[0-9]+", token) else float(token)
        if kind == "share":
            return float(Decimal(token[:-1]) / 100)
        if kind == "budget":
            return parse_budget(token)
        if kind == "string":
            return json.loads(token)
        if kind == "name":
            if token in ("true", "false"):
                return token == "true"
            positional, named = self.arguments(kinds)
            return _named(token, kinds, positional, named)
        if kind == "mark" and token == "(":
            items, trailing = [], False
            while not self._peek(")"):
                items.append(self._expression(kinds))
                trailing = self._take(",")
                if not trailing:
                    break
            self._expect(")")
            return items[0] if len(items) == 1 and not trailing else tuple(items)
        raise self._error(f"did not expect {token!r}" if token else "ended too early", column)

    def arguments(self, kinds: tuple[str, ...]) -> tuple[list[Any], dict[str, Any]]:
        positional: list[Any] = []
        named: dict[str, Any] = {}
        if not self._take("("):
            return positional, named
        while not self._peek(")"):
            kind, token, column = self.tokens[self.next]
            follows = self.tokens[self.next + 1][:2] if self.next + 1 < len(self.tokens) else ("end", "")
            if kind == "name" and follows == ("mark", "="):
                self.next += 2
                if token in named:
                    raise self._error(f"{token} stands twice", column)
                named[token] = self._expression(kinds)
            elif named:
                raise self._error("an argument without a name stands behind one with a name", column)
            else:
                positional.append(self._expression(kinds))
            if not self._take(","):
                break
        self._expect(")")
        return positional, named


def _named(name: str, kinds: tuple[str, ...], positional: list[Any], named: dict[str, Any]) -> Any:
    known: dict[str, Any] = dict(members(*kinds))
    if kinds in (_SCHEDULE_KINDS, _ESTIMATOR_PARTS):
        known = {**catalog.NAMED, **known}
    if name == "plan" and "plan" in known:
        preamble = named.pop("preamble", None)
        if positional:
            raise ValueError("plan takes hyperparameter=schedule pairs, e.g. plan(lr=linear).")
        return _construct("plan", {"plan": Plan}, [named, preamble], {})
    return _construct(name, known, positional, named, "schedule" if kinds == _SCHEDULE_KINDS else kinds[0])


def _construct(
    name: str, known: Mapping[str, Any], positional: list[Any], named: dict[str, Any], kind: str = "modifier"
) -> Any:
    if name not in known:
        # What can begin a schedule, not what can stand inside one.
        begin = [option for option, made in known.items() if getattr(made, "kind", "schedule") in (kind, "profile")]
        raise unknown(kind, name, begin)
    made = known[name]
    if isinstance(made, type):
        arguments = [field.name for field in fields(made)]
        for argument in named:
            if argument not in arguments:
                raise unknown(f"argument of {name}", argument, arguments)
    try:
        return made(*positional, **named)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from None


def _modified(value: Any, settings: dict[str, Any], text: str) -> Any:
    """Sampling, warmup, delay and floor around a schedule; around the rate's schedule of a plan that has only that.

    A preamble goes in front of a whole plan, whatever it has.
    """
    settings = dict(settings)
    preamble = settings.pop("preamble", None)
    if preamble is not None:
        changed = _modified(value, settings, text) if settings else value
        policy = changed if isinstance(changed, Policy) else Policy(parse_plan(changed), None)
        if policy.plan.preamble is not None:
            raise ValueError(f"{text!r} puts a preamble in front of a plan that has one.")
        plan = Plan(policy.plan.courses, preamble)
        return plan if policy.controller is None else Policy(plan, policy.controller)
    if isinstance(value, Policy):
        return Policy(_modified(value.plan, settings, text), value.controller)
    if isinstance(value, Plan):
        names = [name for name, _ in value.courses]
        if names != ["lr"]:
            raise ValueError(
                f"{text!r} modifies a plan for {' and '.join(names)}; modify the schedules inside plan(…) one by one."
            )
        return Plan({"lr": Relative(_modified(value["lr"].schedule, settings, text))}, value.preamble)
    if not isinstance(value, Multiplier):
        raise ValueError(f"in {text!r} a modifier stands behind {value!r}, which is not a schedule.")
    sampling = settings.get("sampling", EveryStep())
    if not isinstance(sampling, Sampling):
        raise ValueError(f"what stands behind '@' in {text!r} must be a sampling, e.g. plateaus(4).")
    return _construct("schedule", {"schedule": Schedule}, [value], settings)


# ---------------------------------------------------------------- value ⇄ JSON


def to_json(value: object) -> Any:
    """Plain JSON types; every field is written out, so that a change of defaults changes no saved value.

    >>> from glideslope.core.profiles import Rex
    >>> to_json(Rex())
    {'type': 'rex', 'beta': 0.5}
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    if isinstance(value, Budget):
        return {"type": "budget", "text": str(value)}
    if isinstance(value, Value) and value.spec_name:
        return {"type": value.spec_name} | {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    way_out = " Give its class a name with `@registered(…)`." if isinstance(value, Value) else ""
    raise TypeError(f"a {type(value).__name__} has no JSON form.{way_out}")


def identity_json(value: object) -> Any:
    """`to_json` without what `Value.whereabouts` names: the same for a thing that lies elsewhere."""

    def without(data: Any) -> Any:
        if isinstance(data, list):
            return [without(item) for item in data]
        if not isinstance(data, dict):
            return data
        left_out = members()[data["type"]].whereabouts if data["type"] in members() else ()
        return {name: without(item) for name, item in data.items() if name not in left_out}

    return without(to_json(value))


def from_json(data: Any) -> Any:
    """The inverse of `to_json`."""
    if isinstance(data, list):
        return tuple(from_json(item) for item in data)
    if not isinstance(data, dict):
        return data
    content = dict(data)
    name = content.pop("type", None)
    if name == "budget":
        return parse_budget(content["text"])
    known = members()
    if name not in known:
        raise unknown("type", str(name), known)
    return known[name]._build(**{key: from_json(item) for key, item in content.items()})


def canonical(data: Any) -> str:
    """The one JSON text of plain data: sorted keys, no spaces, no NaN. What ids are hashed from.

    >>> canonical({"b": 1.0, "a": [1, 2]})
    '{"a":[1,2],"b":1.0}'
    """
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
