"""A page that counts its visits in a database."""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg2


def count(step: int) -> int:
    with open(os.environ["PASSWORD_FILE"], encoding="utf-8") as file:
        password = file.read()
    connection = psycopg2.connect(os.environ["DATABASE"], password=password, connect_timeout=5)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("create table if not exists visits (id int primary key, n int not null)")
            cursor.execute(
                "insert into visits values (1, %s) on conflict (id) do update set n = visits.n + %s returning n",
                (step, step),
            )
            return int(cursor.fetchone()[0])
    finally:
        connection.close()


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        try:
            text = f"visits {count(0 if self.path == '/health' else 1)}\n"
            self.send_response(200)
        except psycopg2.Error as error:
            text = str(error)
            self.send_response(503)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *words: object) -> None:
        """Nothing is logged."""


ThreadingHTTPServer(("", 8000), Page).serve_forever()
