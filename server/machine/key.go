package machine

import (
	"context"
	"fmt"

	"imgbuild/image"
)

// keySetting is where the registry keeps the key that signs plans.
const keySetting = "plan-key"

// Settings is where a server keeps what it shares with other servers of the same registry.
type Settings interface {
	Setting(ctx context.Context, key string) (value []byte, ok bool, err error)
	SetSettingOnce(ctx context.Context, key string, value []byte) (winner []byte, err error)
}

// LoadKey returns the key that signs plans. The first server of a registry makes it.
func LoadKey(ctx context.Context, s Settings) (image.PrivateKey, error) {
	data, ok, err := s.Setting(ctx, keySetting)
	if err == nil && !ok {
		var key image.PrivateKey
		if key, err = image.GenerateKey(); err != nil {
			return key, err
		}
		if data, err = key.Marshal(); err != nil {
			return key, err
		}
		data, err = s.SetSettingOnce(ctx, keySetting, data)
	}
	if err != nil {
		return image.PrivateKey{}, fmt.Errorf("read the key that signs plans: %w", err)
	}
	key, err := image.ParsePrivateKey(data)
	if err != nil {
		return key, fmt.Errorf("read the key that signs plans, the registry's setting %s: %w", keySetting, err)
	}
	return key, nil
}
