"""`python -m modern_di_replicas doctor`: checks a production topology before it is trusted.

`targets` says which servers, `examination` asks them, `checks` evaluates them (pure), `report` shows the findings.
"""
