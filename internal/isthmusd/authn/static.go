// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package authn

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"k8s.io/utils/clock"
)

// maxToken bounds what is parsed of a stranger's header.
const maxToken = 16 << 10

// boundClaims are the private claims that Kubernetes puts into tokens.
type boundClaims struct {
	Kubernetes struct {
		Pod struct {
			Name string `json:"name"`
		} `json:"pod"`
	} `json:"kubernetes.io"`
}

// StaticKey verifies tokens with one ES256 key: it stands in for the API server
// when isthmusd runs from a directory (--token-key).
type StaticKey struct {
	key   *ecdsa.PublicKey
	clock clock.PassiveClock
}

// NewStaticKey reads a PEM public key (PKIX, P-256). A nil clock is the real one.
func NewStaticKey(data []byte, c clock.PassiveClock) (*StaticKey, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("token key is not PEM")
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse token key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("token key is not an ECDSA P-256 public key")
	}
	if c == nil {
		c = clock.RealClock{}
	}
	return &StaticKey{key: key, clock: c}, nil
}

// Verify implements Verifier.
func (s *StaticKey) Verify(_ context.Context, token string) (Subject, error) {
	if len(token) > maxToken {
		return Subject{}, errors.New("too long")
	}
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		// The library's message may quote the token; do not pass it on.
		return Subject{}, errors.New("not a JWT signed with ES256")
	}
	var claims jwt.Claims
	var bound boundClaims
	if err := parsed.Claims(s.key, &claims, &bound); err != nil {
		return Subject{}, errors.New("signature is not by the token key")
	}
	if claims.Expiry == nil {
		return Subject{}, errors.New("has no expiry")
	}
	if err := claims.Validate(jwt.Expected{AnyAudience: jwt.Audience{Audience}, Time: s.clock.Now()}); err != nil {
		return Subject{}, fmt.Errorf("not valid: %w", err)
	}
	return Subject{Name: claims.Subject, Pod: bound.Kubernetes.Pod.Name, NotAfter: claims.Expiry.Time()}, nil
}

// SignStatic makes a token that a StaticKey with the matching public key
// accepts. It lets tests and the demo play the kubelet.
func SignStatic(key *ecdsa.PrivateKey, s Subject) (string, error) {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, nil)
	if err != nil {
		return "", fmt.Errorf("use token key: %w", err)
	}
	var bound boundClaims
	bound.Kubernetes.Pod.Name = s.Pod
	token, err := jwt.Signed(signer).Claims(jwt.Claims{
		Subject:  s.Name,
		Audience: jwt.Audience{Audience},
		Expiry:   jwt.NewNumericDate(s.NotAfter),
	}).Claims(bound).Serialize()
	if err != nil {
		return "", fmt.Errorf("sign token for %s: %w", s.Name, err)
	}
	return token, nil
}
