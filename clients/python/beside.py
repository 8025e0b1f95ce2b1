"""The same requests to two servers, and what their answers differ in.

Requests stand in `chapters/*.http`, one on a line, in sequences with a database of their own:

    ## a title; the database `@` is made before the sequence and removed after it
    PUT @/a {"n":1}
    GET @/a?rev=<a> [If-None-Match: "<a>"] [As: nobody]

`<a>` is the latest revision of the document `a` that this server has told, `<a:1>` its revision of that
generation, `<rev>` the latest revision of any, `<seq>` the latest sequence, `<cookie>` the session and `<x*9>` nine times `x`. Lines that are indented continue the
body; with `[Lines: yes]`, as lines of their own that end in CRLF. A body is JSON unless its `Content-Type`
says otherwise. `[As: name:password]` asks as somebody else than the server's admin.
"""

import base64
import http.client
import itertools
import json
import re
import time
import uuid
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

CHAPTERS = sorted((Path(__file__).parent / "chapters").glob("*.http"))

#: Seconds that an answer may take.
PATIENCE = 8

REQUEST = re.compile(r"(?P<method>[A-Z]+) (?P<path>\S+)(?P<headers>(?: \[[\w-]+: [^\]]*\])*) ?(?P<body>.*)", re.S)
HEADER = re.compile(r"\[([\w-]+): ([^\]]*)\]")
RECALLED = re.compile(r"<(\w[\w./-]*)(?::(\d+))?>")
REPEATED = re.compile(r"<([^<>*]+)\*(\d+)>")


class Request:
    def __init__(self, chapter, text):
        parts = REQUEST.fullmatch(text)
        if not parts:
            raise ValueError(f"{chapter}: not a request: {text}")
        self.method, self.path = parts["method"], parts["path"]
        self.text = text.split("\n")[0]
        self.headers = dict(HEADER.findall(parts["headers"]))
        self.who = self.headers.pop("As", None)
        first, *rest = parts["body"].split("\n")
        if self.headers.pop("Lines", None):
            self.body = "".join(line + "\r\n" for line in rest)
        else:
            self.body = "\n".join([first, *rest])
        if self.body:
            self.headers.setdefault("Content-Type", "application/json")

    def __str__(self):
        return self.text[:200]


def sequences(chapter):
    """The sequences of a chapter: a title and its requests each."""
    found = []
    for text in re.split(r"^## ", chapter.read_text(), flags=re.M)[1:]:
        title, _, rest = text.partition("\n")
        requests = re.findall(r"^[A-Z].*(?:\n+    .*)*", rest, flags=re.M)
        found.append((title, [Request(chapter.stem, re.sub(r"^    ", "", each, flags=re.M)) for each in requests]))
    return found


class Server:
    """One of the two servers, and what it has told in this sequence."""

    def __init__(self, url):
        url = urlsplit(url)
        self.host, self.port = url.hostname, url.port
        self.name, self.password = unquote(url.username), unquote(url.password)
        self.begin()

    def begin(self):
        self.db, self.cookie = "beside-" + uuid.uuid4().hex[:12], "none"
        self.revs, self.rev, self.seq = {}, "0-0", "0"

    def fill_in(self, text):
        def recall(found):
            id, generation = found.groups()
            if id == "seq":
                return quote(str(self.seq))
            if id in ("db", "name", "password", "host", "port", "rev", "cookie"):
                return str(getattr(self, id))
            revs = self.revs.get(id, [])
            if generation:
                revs = [rev for rev in revs if rev.startswith(generation + "-")]
            return revs[-1] if revs else found[0]

        text = REPEATED.sub(lambda found: found[1] * int(found[2]), text)
        return RECALLED.sub(recall, text)

    def remember(self, told):
        for each in told if isinstance(told, list) else [told]:
            if not isinstance(each, dict):
                continue
            id, rev = each.get("id", each.get("_id")), each.get("rev", each.get("_rev"))
            if isinstance(id, str) and isinstance(rev, str):
                self.revs.setdefault(id, []).append(rev)
                self.rev = rev
            self.seq = each.get("last_seq", each.get("update_seq", self.seq))

    def ask(self, request):
        headers = {name: self.fill_in(value) for name, value in request.headers.items() if value}
        if request.who != "nobody":
            who = self.fill_in(request.who or "<name>:<password>")
            headers.setdefault("Authorization", "Basic " + base64.b64encode(who.encode()).decode())
        body = self.fill_in(request.body).encode() if request.body else None
        path = self.fill_in(re.sub(r"^@", "/" + self.db, request.path))
        path = re.sub(r"[^\x21-\x7e]+", lambda found: quote(found[0]), path)
        line = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE)
        try:
            line.putrequest(request.method, path, skip_accept_encoding=True)
            if body is not None or request.method in ("POST", "PUT"):
                line.putheader("Content-Length", str(len(body or b"")))
            for name, value in headers.items():
                line.putheader(name, value)
            line.endheaders(body)
            answer = Answer(self, path, line.getresponse())
        except (OSError, http.client.HTTPException) as error:
            return {"status": f"no answer: {type(error).__name__}"}
        finally:
            line.close()
        self.remember(answer.json)
        cookie = re.match("AuthSession=([^;]+)", answer.headers.get("Set-Cookie", ""))
        self.cookie = cookie[1] if cookie else self.cookie
        return answer.comparable()


#: Headers whose values are compared.
EXACT = [
    "Content-Type", "Cache-Control", "Allow", "WWW-Authenticate", "Content-Encoding", "Content-MD5",
    "Accept-Ranges", "Content-Range", "Content-Disposition", "Content-Security-Policy", "Vary", "Location",
    "ETag", "Set-Cookie", "X-Couch-Update-NewRev", "Access-Control-Allow-Origin",
    "Access-Control-Allow-Methods", "Access-Control-Allow-Headers", "Access-Control-Allow-Credentials",
    "Access-Control-Expose-Headers", "Access-Control-Max-Age", "X-Custom",
]  # fmt: skip
#: Headers that must be there or not.
PRESENT = ["Server", "Date", "X-Couch-Request-ID", "X-CouchDB-Body-Time"]


def seq(value):
    """A sequence is opaque, but in a database of one shard CouchDB's begin with a number as well."""
    number = re.match(r"\d+", str(value))
    return f"seq {number[0]}" if number else value


def of_type(value):
    return f"some {type(value).__name__}"


#: Members whose values differ between two servers that behave alike.
VOLATILE = {
    **dict.fromkeys(["seq", "last_seq", "update_seq", "purge_seq", "_local_seq"], seq),
    **dict.fromkeys(["start_last_seq", "end_last_seq", "recorded_seq", "source_last_seq"], seq),
    **dict.fromkeys(["instance_start_time", "start_time", "end_time"], of_type),
    **dict.fromkeys(["version", "git_sha", "uuid", "session_id", "signature", "sizes"], of_type),
    **dict.fromkeys(["derived_key", "salt", "collator_versions"], of_type),
}


class Answer:
    def __init__(self, server, path, response):
        # What is salted has other revisions each time.
        self.is_salted = path.startswith("/_users/")
        self.server, self.status, self.headers = server, response.status, response.headers
        self.body, self.ended = b"", False
        until = time.monotonic() + PATIENCE
        while not self.ended and time.monotonic() < until:
            part = response.read1()
            self.body, self.ended = self.body + part, not part
        try:
            self.json = json.loads(self.body)
        except ValueError:
            self.json = None

    def comparable(self):
        """Everything of this answer that must be the same on both servers."""
        told = {"status": self.status if self.ended else f"{self.status}, does not end"}
        for name in EXACT:
            value = ", ".join(self.headers.get_all(name, []))
            if value:
                told[name] = self.header(name, value)
        told.update((name, "there") for name in PRESENT if name in self.headers)
        if self.json is not None:
            told["body"] = self.normal(self.json)
        elif self.body.strip():
            told["body"] = self.lines()
        return told

    def header(self, name, value):
        if name == "Location":
            value = re.sub(r"^https?://[^/]*", "http://host", value)
        if name == "Set-Cookie":
            value = re.sub(r"AuthSession=[^;]+", "AuthSession=…", value)
            value = re.sub(r"Expires=[^;]+", "Expires=…", value)
            value = "; ".join(sorted(value.split("; ")))
        if name == "ETag" and not re.fullmatch(r'"(\d+-[0-9a-f]{32}|[\w+/]{22}==|\w)"', value):
            value = "of some state"
        value = re.sub(r'boundary="?[^";]+"?', "boundary=…", value)
        return self.text(value)

    def text(self, value):
        """Without what names this server and its database."""
        if value == self.server.name:
            return "the admin"
        if self.is_salted:
            value = re.sub("-[0-9a-f]{32}", "-…", value)
        value = value.replace(self.server.db, "@").replace(self.server.db.replace("-", "%2D"), "@")
        value = value.replace(f"{self.server.host}:{self.server.port}", "host")
        return value

    def normal(self, value, name=None):
        if name in VOLATILE and value is not None:
            return VOLATILE[name](value)
        if isinstance(value, dict):
            return {self.text(each): self.normal(value[each], each) for each in value}
        if isinstance(value, list):
            return [self.normal(each) for each in value]
        return self.text(value) if isinstance(value, str) else value

    def lines(self):
        """A body that is not JSON, line by line: feeds, parts, what functions write."""
        boundary = re.search(r'boundary="?([^";]+)', self.headers.get("Content-Type", ""))
        text = self.body.decode("utf-8", "backslashreplace")
        inner = re.findall(r'boundary="?([^";\s]+)', text)
        for each in ([boundary[1]] if boundary else []) + inner:
            text = text.replace(f'"{each}"', each).replace(each, "…")
        told = []
        for line in text.rstrip().split("\n"):
            prefix, rest = re.fullmatch(r"(data: ?|id: ?)?(.*)", line.rstrip("\r"), re.S).groups()
            if prefix and prefix.startswith("id"):
                rest = seq(rest.strip('"'))
            try:
                rest = self.normal(json.loads(rest))
            except ValueError:
                rest = self.text(rest)
            told.append([prefix, rest] if prefix else rest)
        return told


def differences(ours, theirs, where=""):
    """Where two answers differ: a path into them, and what stands there in each."""
    if type(ours) is not type(theirs):
        yield where, ours, theirs
    elif isinstance(ours, dict):
        for name in [*ours, *(name for name in theirs if name not in ours)]:
            yield from differences(ours.get(name), theirs.get(name), f"{where}.{name}".lstrip("."))
    elif isinstance(ours, list):
        for index, (a, b) in enumerate(itertools.zip_longest(ours, theirs)):
            yield from differences(a, b, f"{where}[{index}]")
    elif ours != theirs:
        yield where, ours, theirs


def described(ours, theirs):
    """The differences of two answers in words; of answers of two kinds, just what kinds they are."""
    if ours["status"] != theirs["status"]:
        yield f"status: {kind(ours)}, not {kind(theirs)}"
    else:
        for where, here, there in differences(ours, theirs):
            yield f"{where}: {here!r:.300}, not {there!r:.300}"


def kind(answer):
    body = answer.get("body")
    error = [body[name] for name in ("error", "reason") if name in body] if isinstance(body, dict) else []
    return f"{answer['status']} {error or ''}".strip()


MAKE, REMOVE = Request("", "PUT @?q=1"), Request("", "DELETE @")


def run(requests, ours, theirs):
    """Asks both servers, and yields the requests with what their answers differ in."""
    for server in (ours, theirs):
        server.begin()
        server.ask(MAKE)
    try:
        for request in requests:
            yield request, list(described(ours.ask(request), theirs.ask(request)))
    finally:
        for server in (ours, theirs):
            server.ask(REMOVE)
