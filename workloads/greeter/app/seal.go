package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"os"
)

// seal shows that the function has a secret without saying it: an HMAC-SHA-256 of the nonce, with the file's content of this moment
// as the key. It is empty where there is no such file.
func seal(file, nonce string) string {
	if file == "" || nonce == "" {
		return ""
	}
	secret, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(nonce))
	return hex.EncodeToString(mac.Sum(nil))
}
