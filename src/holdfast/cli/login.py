"""`holdfast login` and `logout`."""

from __future__ import annotations

import getpass
import sys

import click

from holdfast.cli.command import command
from holdfast.cli.credentials import HUB, CredentialFile, Login, normal_server
from holdfast.cli.session import Refused, pass_client
from holdfast.client import Client

_UNENCRYPTED = """
WARNING! Your credentials are stored unencrypted in '{path}'.
Configure a credential helper to remove this warning. See
https://docs.docker.com/go/credential-store/
"""


@command("login")
@click.argument("server", required=False, default="", metavar="[SERVER]")
@click.option("username", "-u", "--username", default="", metavar="NAME", help="User name")
@click.option("password", "-p", "--password", default="", metavar="TEXT", help="Password or access token")
@click.option("from_stdin", "--password-stdin", is_flag=True, help="Read the password from stdin")
@pass_client
def login(client: Client, server: str, username: str, password: str, from_stdin: bool) -> int:
    """Log in to a registry and keep the credentials for pull and push."""
    if password:
        print("WARNING! Using --password via the CLI is insecure. Use --password-stdin.", file=sys.stderr)
        if from_stdin:
            raise Refused("--password and --password-stdin are mutually exclusive")
    if from_stdin:
        if not username:
            raise Refused("the --password-stdin option requires --username to be set")
        password = sys.stdin.read().rstrip("\r\n")
    file, name = CredentialFile(), normal_server(server)
    known = None if username or password else file.get(name)
    given = known or _asked(username, password)
    answer = client.engine.log_in(given.document(name))
    token = answer.text("IdentityToken")
    kept = Login(given.username, identity_token=token) if token else given
    if file.store(name, kept):
        print(_UNENCRYPTED.format(path=file.path), file=sys.stderr)
    print(answer.text("Status"))
    return 0


@command("logout")
@click.argument("server", required=False, default="", metavar="[SERVER]")
def logout(server: str) -> int:
    """Forget the credentials for a registry."""
    name = normal_server(server)
    print(f"Removing login credentials for {name}")
    if not CredentialFile().erase(name):
        print(f"Not logged in to {'Docker Hub' if name == HUB else name}", file=sys.stderr)
    return 0


def _asked(username: str, password: str) -> Login:
    """Ask on the terminal for what is missing. Raises Refused where there is none."""
    if not (username and password) and not sys.stdin.isatty():
        raise Refused("Error: Cannot perform an interactive login from a non TTY device")
    if not username:
        username = input("Username: ").strip()
    if not password:
        password = getpass.getpass("Password: ")
    if not username or not password:
        raise Refused("Error: username and password are both needed")
    return Login(username, password)
