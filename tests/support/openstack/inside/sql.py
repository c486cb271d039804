"""Statements from stdin, one a line, as the database's root: `sql.py HOST PORT`."""

import sys

import pymysql

connection = pymysql.connect(host=sys.argv[1], port=int(sys.argv[2]), user="hansa", autocommit=True)
with connection.cursor() as cursor:
    for statement in filter(str.strip, sys.stdin):
        cursor.execute(statement)
connection.close()
