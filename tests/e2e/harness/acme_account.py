"""Requests of an ACME account's owner, made without the daemon."""

import base64
import json
import ssl
import urllib.request

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature


def deactivate(server, kept):
    """Deactivates an account (RFC 8555, section 7.3.6), as its owner does when the key may have leaked. `kept` is the
    daemon's record of the account. The request is signed with ES256 (RFC 7515)."""
    context = ssl.create_default_context(cafile=str(server.ca_file))

    def ask(url, body=None):
        headers = {"content-type": "application/jose+json"} if body else {}
        request = urllib.request.Request(url, data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=20, context=context) as answer:
            return answer.headers, answer.read()

    directory = json.loads(ask(server.directory)[1])
    nonce = ask(directory["newNonce"])[0]["replay-nonce"]
    header = {"alg": "ES256", "kid": kept["id"], "nonce": nonce, "url": kept["id"]}
    protected, payload = (encode(json.dumps(part).encode()) for part in (header, {"status": "deactivated"}))
    key = serialization.load_der_private_key(decode(kept["key_pkcs8"]), None)
    r, s = decode_dss_signature(key.sign(f"{protected}.{payload}".encode(), ec.ECDSA(hashes.SHA256())))
    signature = encode(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
    signed = {"protected": protected, "payload": payload, "signature": signature}
    answer = json.loads(ask(kept["id"], json.dumps(signed).encode())[1])
    assert answer["status"] == "deactivated", answer


def encode(data):
    """base64url without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def decode(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
