#!/usr/bin/env python3
"""Writes the structure of a CRD's schema as lines of path, type and facts, without its prose.

    flatten.py virtualmachine.schema.yaml > kubevirt-1.9-vm.tsv

The input is a YAML file with `openAPIV3Schema` at its root. `[]` in a path is an element of a
list, `{}` a value of a map. Facts are sorted and separated by blanks; `required` is said of the
field, all others of its value. Lists that are `atomic` are not marked, as that is what a list in a
custom resource is.
"""
import json
import sys

import yaml

KEPT = {
    "default", "enum", "format", "maxItems", "maxLength", "maximum", "minimum", "nullable", "pattern",
    "x-kubernetes-int-or-string", "x-kubernetes-list-map-keys", "x-kubernetes-list-type",
    "x-kubernetes-map-type", "x-kubernetes-preserve-unknown-fields",
}


def walk(path, schema, required):
    facts = ["required"] if required else []
    for key in sorted(KEPT & schema.keys()):
        value = schema[key]
        if (key, value) != ("x-kubernetes-list-type", "atomic"):
            facts.append(f"{key}={json.dumps(value, separators=(',', ':'))}")
    kind = "any" if "x-kubernetes-int-or-string" in schema else schema.get("type", "any")
    if path:
        print(path, kind, " ".join(facts), sep="\t")
    for name, inner in sorted(schema.get("properties", {}).items()):
        walk(f"{path}.{name}", inner, name in schema.get("required", []))
    if "items" in schema:
        walk(path + "[]", schema["items"], False)
    if isinstance(schema.get("additionalProperties"), dict):
        walk(path + "{}", schema["additionalProperties"], False)


walk("", yaml.safe_load(open(sys.argv[1]))["openAPIV3Schema"], False)
