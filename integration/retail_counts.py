#!/usr/bin/env python3
"""Counts what a retail CSV holds and what an importer has to refuse, from the file alone.

    retail_counts.py FILE[.gz] [--until YYYY-MM-DD]

prints one JSON object with sorted keys. It shares nothing with the importer, so that a report of the importer can be held against
it: both are written from the rules below, and neither from the other.

Columns: InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country.

A line that belongs to no invoice is refused; the first reason that holds counts:
  malformed            it has not eight columns
  invalid_text         a column is not UTF-8
  invoice_malformed    the invoice is not digits, or C or A and digits
  time_malformed       the time is not like 2010-12-01 08:26:00
Then a line of an invoice is refused; the first reason that holds counts:
  missing              it has no stock code
  quantity_malformed   the quantity is no whole number of 64 bits
  price_malformed      the price is not an optional minus, digits, and an optional point with digits; or too large
  price_decimals       the price has more than two decimals, not counting zeros at its end
  quantity_zero        the quantity is 0
  price_negative       the price is below 0, and the invoice is no adjustment (A)
  quantity_sign        the quantity is below 0 with a price in a sale; or a cancellation (C) has a quantity above 0 or no price
  invoice_inconsistent the customer or country differs from the invoice's first line
What is left is, by its invoice:
  A: adjustment      C: cancellation
  digits alone: sale (quantity and price above 0), free (no price), write_off (quantity below 0 and no price)

Codes that are no goods, whatever their case: POST, D, M, BANK CHARGES, AMAZONFEE, CRUK, DOT, S, B, PADS, C2, and gift_*.
An invoice counts even when all its lines were refused. Sums are in pence. With --until, lines from that day on are left out.
"""

import argparse
import collections
import csv
import datetime
import decimal
import gzip
import json
import re

COLUMNS = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country".split(",")
NO_GOODS = {"POST", "D", "M", "BANK CHARGES", "AMAZONFEE", "CRUK", "DOT", "S", "B", "PADS", "C2"}
LARGEST = 2**63 - 1


def open_text(path):
    # Bytes that are no UTF-8 survive as lone surrogates, so that they can be recognised per line.
    how = {"mode": "rt", "encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, **how) if packed else open(path, **how)


def stray(row):
    """Why a row belongs to no invoice, or None."""
    if len(row) != len(COLUMNS):
        return "malformed"
    if any("\udc80" <= character <= "\udcff" for field in row for character in field):
        return "invalid_text"
    if not re.fullmatch(r"[CA]?[0-9]+", row[0]):
        return "invoice_malformed"
    if not re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", row[4], re.ASCII):
        return "time_malformed"
    try:
        datetime.datetime.fromisoformat(row[4])
    except ValueError:
        return "time_malformed"
    return None


def classify(row):
    """(category, pieces, pence) of a row of an invoice, or (None, reason, None)."""
    invoice, code, _, quantity, _, price, _, _ = row
    if not code.strip():
        return None, "missing", None
    if not re.fullmatch(r"[+-]?[0-9]+", quantity) or not -LARGEST - 1 <= int(quantity) <= LARGEST:
        return None, "quantity_malformed", None
    if not re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", price):
        return None, "price_malformed", None
    pence = decimal.Decimal(price) * 100
    if pence != pence.to_integral_value():
        return None, "price_decimals", None
    if abs(pence) > LARGEST:
        return None, "price_malformed", None
    pieces, pence = int(quantity), int(pence)
    if pieces == 0:
        return None, "quantity_zero", None
    if invoice[0] == "A":
        return "adjustment", pieces, pence
    if pence < 0:
        return None, "price_negative", None
    if invoice[0] == "C":
        if pieces > 0 or pence == 0:
            return None, "quantity_sign", None
        return "cancellation", pieces, pence
    if pieces > 0:
        return ("sale" if pence > 0 else "free"), pieces, pence
    if pence > 0:
        return None, "quantity_sign", None
    return "write_off", pieces, pence


def is_goods(code):
    return code.upper() not in NO_GOODS and not code.upper().startswith("GIFT_")


def count(rows, until):
    lines = 0
    rejected = collections.Counter()
    owner = {}
    length = collections.Counter()
    invoices_of = collections.defaultdict(set)
    totals = collections.defaultdict(lambda: [0, 0, 0])
    without_goods = guests = 0
    prices = collections.defaultdict(set)
    for row in rows:
        reason = stray(row)
        if until and reason is None and row[4][:10] >= until:
            continue
        lines += 1
        if reason:
            rejected[reason] += 1
            continue
        invoice, code, customer, country = row[0], row[1], row[6], row[7]
        length[invoice] += 1
        owner.setdefault(invoice, (customer, country))
        category, pieces, pence = classify(row)
        if category and owner[invoice] != (customer, country):
            category, pieces = None, "invoice_inconsistent"
        if category is None:
            rejected[pieces] += 1
            continue
        total = totals[category]
        total[0] += 1
        total[1] += pieces
        total[2] += pieces * pence
        invoices_of[category].add(invoice)
        without_goods += not is_goods(code)
        guests += customer == ""
        if category == "sale":
            prices[invoice, code].add(pence)
    return {
        "lines": lines,
        "invoices": len(length),
        "categories": {
            category: {
                "lines": total[0],
                "invoices": len(invoices_of[category]),
                "pieces": total[1],
                "sum_minor": total[2],
            }
            for category, total in totals.items()
        },
        "rejected": dict(rejected),
        "lines_without_goods": without_goods,
        "lines_of_guests": guests,
        "codes_at_two_prices": sum(len(found) > 1 for found in prices.values()),
        "longest_invoice": max(length.values(), default=0),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file")
    parser.add_argument("--until", metavar="YYYY-MM-DD", help="leave out lines from this day on")
    arguments = parser.parse_args()
    with open_text(arguments.file) as file:
        # A row may hold a line break within quotes; empty lines are no rows.
        rows = (row for row in csv.reader(file) if row)
        if next(rows, None) != COLUMNS:
            raise SystemExit(f"{arguments.file}: the header is not {','.join(COLUMNS)}")
        print(json.dumps(count(rows, arguments.until), indent=2, sort_keys=True))


if __name__ == "__main__":
    main()
