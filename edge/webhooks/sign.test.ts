import { Webhook } from "standardwebhooks";
import { expect, it } from "vitest";
import { newSecret, signedHeaders } from "./sign.ts";

it("signs as the published example of Standard Webhooks", () => {
  const [secret, id] = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek"];
  expect(signedHeaders([secret], id, 1_614_265_330_999, '{"test": 2432232314}')).toEqual({
    "webhook-id": id,
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
  });
});

it("signs with every secret, and each verifies", () => {
  const secrets = [newSecret(), newSecret()];
  const headers = signedHeaders(secrets, "msg_1", Date.now(), '{"a":"é"}');
  for (const secret of secrets) expect(new Webhook(secret).verify('{"a":"é"}', headers)).toEqual({ a: "é" });
  expect(() => new Webhook(newSecret()).verify('{"a":"é"}', headers)).toThrow("No matching signature");
});

it("makes secrets of 24 random bytes", () => {
  const secret = newSecret();
  expect(secret).toMatch(/^whsec_[A-Za-z0-9+/]{32}$/);
  expect(newSecret()).not.toBe(secret);
});
