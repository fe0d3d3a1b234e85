"""What ``/openapi.json`` says of requests and answers; no answer is checked against it while it is made."""
