#!/bin/sh
# What openssl computes from known data: digests, ciphers, signatures. The same lines come out of it on any processor.
seq 1 20000 >data
for digest in md5 sha1 sha224 sha256 sha384 sha512 sha512-256 sha3-256 shake256 blake2b512 ripemd160 sm3; do
  echo "$digest $(openssl dgst -$digest -r <data 2>&1 | cut -d' ' -f1)"
done
key=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
iv=0f0e0d0c0b0a09080706050403020100
for bits in 128 192 256; do
  for mode in ecb cbc ctr cfb ofb; do
    name=aes-$bits-$mode
    case $mode in ecb) ivs= ;; *) ivs="-iv $iv" ;; esac
    openssl enc -$name -K $(echo $key | cut -c1-$((bits / 4))) $ivs <data >secret
    openssl enc -d -$name -K $(echo $key | cut -c1-$((bits / 4))) $ivs <secret | cmp - data || echo "$name does not come back"
    echo "$name $(sha256sum <secret | cut -c1-16)"
  done
done
for name in chacha20 camellia-256-cbc aria-256-cbc des-ede3-cbc sm4-cbc; do
  case $name in des*) k=$(echo $key | cut -c1-48) v=$(echo $iv | cut -c1-16) ;; camellia*|aria*|chacha*) k=$key v=$iv ;; *) k=$(echo $key | cut -c1-32) v=$iv ;; esac
  openssl enc -$name -K $k -iv $v <data >secret && echo "$name $(sha256sum <secret | cut -c1-16)"
done
for mac in "HMAC -digest SHA256 -macopt hexkey:$key" "CMAC -cipher AES-256-CBC -macopt hexkey:$key" \
  "GMAC -cipher AES-256-GCM -macopt hexkey:$key -macopt hexiv:000102030405060708090a0b" "Poly1305 -macopt hexkey:$key"; do
  set -- $mac
  name=$1; shift
  echo "$name $(openssl mac "$@" -in data $name)"
done
echo "pbkdf2 $(openssl kdf -keylen 32 -kdfopt digest:SHA256 -kdfopt pass:secret -kdfopt salt:salt -kdfopt iter:2000 PBKDF2)"
echo "prime $(openssl prime 170141183460469231731687303715884105727 | grep -c "is prime")"
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024 -out rsa.pem 2>/dev/null
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out p256.pem
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:secp384r1 -out p384.pem
openssl genpkey -algorithm ED25519 -out ed25519.pem
for name in rsa p256 p384 ed25519; do
  openssl pkey -in $name.pem -pubout -out $name.pub
  case $name in ed*) hashing="-rawin" ;; *) hashing="-rawin -digest sha256" ;; esac
  openssl pkeyutl -sign -inkey $name.pem $hashing -in data -out signature
  echo "$name $(openssl pkeyutl -verify -pubin -inkey $name.pub $hashing -in data -sigfile signature)"
  echo changed >>data
  echo "$name, changed: $(openssl pkeyutl -verify -pubin -inkey $name.pub $hashing -in data -sigfile signature 2>&1 | tail -n 1)"
  seq 1 20000 >data
done
