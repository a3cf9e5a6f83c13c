#!/bin/sh
# openssl's own measurement, which also checks: it fails where an operation does.
openssl speed -seconds 1 -bytes 1024 -evp aes-128-gcm && openssl speed -seconds 1 -bytes 1024 sha256 && openssl speed -seconds 1 rsa512 ecdsap256
