"""Writes data/train.jsonl and data/test.jsonl: questions about small tables, with the rows that a right query returns."""

import json
import random
import sqlite3
from itertools import product
from pathlib import Path

CITIES, ITEMS = ("Oslo", "Rome", "Lima", "Cairo"), ("tea", "rice", "salt", "wine")
KINDS = {"How many": "count(*)", "Total": "sum(amount)", "Largest": "max(amount)", "Smallest": "min(amount)"}
SIDES = {"above": ">", "below": "<"}
POINTLESS = {("Largest", "above"), ("Smallest", "below")}  # the condition would change nothing


def query(what, *conditions):
    return f"SELECT {what} FROM sales WHERE {' AND '.join(conditions)}"


def answers(schema, queries):
    database = sqlite3.connect(":memory:")
    database.executescript(schema)
    return [database.execute(each).fetchall() for each in queries]


def problem(number, kind, side, city, item, amount, chance):
    conditions = [f"city = '{city}'", f"item = '{item}'", f"amount {SIDES[side]} {amount}"]
    right = query(KINDS[kind], *conditions)
    near = [query(what, *conditions) for what in KINDS.values() if what != KINDS[kind]]
    near += [query(KINDS[kind], *(each for each in conditions if each != left_out)) for left_out in conditions]
    while True:  # until no near miss returns the same rows: a reward that luck can earn teaches luck
        places = [(city, item)] * 6 + [(chance.choice(CITIES), chance.choice(ITEMS)) for _ in range(10)]
        places += [(city, chance.choice(ITEMS)), (chance.choice(CITIES), item)] * 3
        values = ", ".join(f"('{c}', '{i}', {chance.randint(1, 20)})" for c, i in places)
        schema = f"CREATE TABLE sales (city TEXT, item TEXT, amount INTEGER); INSERT INTO sales VALUES {values};"
        rows, *misses = answers(schema, [right, *near])
        if rows not in misses:
            question = f"{kind} {item} in {city} {side} {amount}?"
            return {"id": number, "question": question, "schema": schema, "rows": rows, "solution": right}


def main():
    chance = random.Random(0)
    asked = [each for each in product(KINDS, SIDES, CITIES, ITEMS, range(6, 15)) if each[:2] not in POINTLESS]
    chance.shuffle(asked)
    problems = [problem(number, *each, chance) for number, each in enumerate(asked)]
    Path("data").mkdir(exist_ok=True)
    for name, part in (("test", problems[:64]), ("train", problems[64:])):
        Path("data", f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in part), encoding="utf-8")


if __name__ == "__main__":
    main()
