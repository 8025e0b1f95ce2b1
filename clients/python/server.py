"""Where the server is. Import this before `couchdb`, which reads its default server when imported."""

import os
from urllib.parse import quote, urlsplit

NAME, PASSWORD = os.environ["SETTEE_NAME"], os.environ["SETTEE_PASSWORD"]
_url = urlsplit(os.environ["SETTEE_URL"])

#: Without credentials.
PLAIN_URL = f"{_url.scheme}://{_url.netloc}/"
#: With them.
FULL_URL = f"{_url.scheme}://{quote(NAME)}:{quote(PASSWORD)}@{_url.netloc}/"

os.environ["COUCHDB_URL"] = FULL_URL
