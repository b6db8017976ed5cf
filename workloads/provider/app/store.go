package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// settings is the file CONFIG_FILE.
type settings struct {
	// The private key that signs tokens: a P-256 scalar, 32 bytes in hexadecimal. It is given from outside so that a provider
	// that starts anew signs as before, as one with a database would.
	SigningKey string `json:"signing_key"`
	Client     struct {
		ID          string `json:"id"`
		Secret      string `json:"secret"`
		RedirectURI string `json:"redirect_uri"`
	} `json:"client"`
	// By name, which is the subject of the user's tokens too.
	Users map[string]struct {
		Password     string  `json:"password"`
		TokenSeconds float64 `json:"token_seconds"`
	} `json:"users"`
}

func (s *settings) codeKey() [32]byte { return sha256.Sum256([]byte("codes " + s.SigningKey)) }

// store is the example's storage with a key, clients, users and token lifetimes of ours.
type store struct {
	*storage.Storage
	key       signingKey
	lifetimes map[string]time.Duration
}

func newStore(wanted settings) (*store, error) {
	raw, err := hex.DecodeString(wanted.SigningKey)
	if err != nil {
		return nil, errors.New("signing_key is not hexadecimal")
	}
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), raw)
	if err != nil {
		return nil, fmt.Errorf("signing_key: %w", err)
	}
	if wanted.Client.ID == "" || wanted.Client.Secret == "" || len(wanted.Users) == 0 {
		return nil, errors.New("the configuration lacks a client with a secret, or users")
	}
	lifetimes, people := map[string]time.Duration{}, users{}
	for name, user := range wanted.Users {
		if user.Password == "" || user.TokenSeconds <= 0 {
			return nil, fmt.Errorf("user %s lacks a password or token_seconds", name)
		}
		lifetimes[name] = time.Duration(user.TokenSeconds * float64(time.Second))
		people[name] = &storage.User{ID: name, Username: name, Password: user.Password}
	}
	clients := map[string]*storage.Client{wanted.Client.ID: storage.WebClient(wanted.Client.ID, wanted.Client.Secret, wanted.Client.RedirectURI)}
	public := sha256.Sum256(elliptic.MarshalCompressed(elliptic.P256(), private.X, private.Y))
	return &store{storage.NewStorageWithClients(people, clients), signingKey{hex.EncodeToString(public[:8]), private}, lifetimes}, nil
}

// client asks for access tokens that others can verify: JWTs instead of opaque ones.
type client struct{ op.Client }

func (client) AccessTokenType() op.AccessTokenType { return op.AccessTokenTypeJWT }

func (s *store) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	found, err := s.Storage.GetClientByClientID(ctx, id)
	if err != nil {
		return nil, err
	}
	return client{found}, nil
}

func (s *store) CreateAccessToken(ctx context.Context, request op.TokenRequest) (string, time.Time, error) {
	id, _, err := s.Storage.CreateAccessToken(ctx, request)
	return id, time.Now().Add(s.lifetimes[request.GetSubject()]), err
}

func (s *store) CreateAccessAndRefreshTokens(ctx context.Context, request op.TokenRequest, current string) (string, string, time.Time, error) {
	id, refresh, _, err := s.Storage.CreateAccessAndRefreshTokens(ctx, request, current)
	return id, refresh, time.Now().Add(s.lifetimes[request.GetSubject()]), err
}

// The example knows a service user with a published password, and a published key; nobody gets a token by these here.
func (s *store) ClientCredentials(context.Context, string, string) (op.Client, error) {
	return nil, errors.New("no client credentials")
}

func (s *store) GetKeyByIDAndClientID(context.Context, string, string) (*jose.JSONWebKey, error) {
	return nil, errors.New("no client keys")
}

func (s *store) SigningKey(context.Context) (op.SigningKey, error) { return &s.key, nil }

func (s *store) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{jose.ES256}, nil
}

func (s *store) KeySet(context.Context) ([]op.Key, error) { return []op.Key{publicKey{s.key}}, nil }

type signingKey struct {
	id      string
	private *ecdsa.PrivateKey
}

func (k *signingKey) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.ES256 }
func (k *signingKey) Key() any                                    { return k.private }
func (k *signingKey) ID() string                                  { return k.id }

type publicKey struct{ of signingKey }

func (k publicKey) ID() string                         { return k.of.id }
func (k publicKey) Algorithm() jose.SignatureAlgorithm { return jose.ES256 }
func (k publicKey) Use() string                        { return "sig" }
func (k publicKey) Key() any                           { return &k.of.private.PublicKey }

// users is the example's UserStore over a map by name; an id is a name.
type users map[string]*storage.User

func (u users) GetUserByID(id string) *storage.User         { return u[id] }
func (u users) GetUserByUsername(name string) *storage.User { return u[name] }
func (u users) ExampleClientID() string                     { return "" }
