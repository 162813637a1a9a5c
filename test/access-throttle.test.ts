import { beforeEach, expect, test } from "bun:test";
import { addressBytes, canonicalAddress } from "../src/access/address.ts";
import { Throttle } from "../src/access/throttle.ts";
import { ManualClock } from "./support/manual-clock.ts";

const stranger = "192.0.2.7";
const owner = "198.51.100.9";
let clock: ManualClock;
let throttle: Throttle;
beforeEach(() => {
  clock = new ManualClock();
  clock.pass(1_000_000);
  throttle = new Throttle(clock);
});

function reject(address: string, times: number): void {
  for (let count = 0; count < times; count += 1) throttle.reject(address);
}

test("Ten rejected messages a minute are free, the next ones double the wait up to a minute", () => {
  reject(stranger, 10);
  expect(throttle.waitMs(stranger)).toBe(0);
  const waits = [];
  for (let count = 0; count < 8; count += 1) {
    throttle.reject(stranger);
    waits.push(throttle.waitMs(stranger));
    clock.pass(throttle.waitMs(stranger));
    expect(throttle.waitMs(stranger)).toBe(0);
  }
  expect(waits).toEqual([1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
});

test("Rejected messages of more than a minute ago do not count", () => {
  for (let count = 0; count < 100; count += 1) {
    throttle.reject(stranger);
    clock.pass(6_001);
  }
  expect(throttle.waitMs(stranger)).toBe(0);
});

test("Patience buys one guess a minute, and a quiet minute after the wait is a new start", () => {
  reject(stranger, 30);
  clock.pass(60_000);
  throttle.reject(stranger);
  expect(throttle.waitMs(stranger)).toBe(60_000);
  clock.pass(119_999);
  throttle.reject(stranger);
  expect(throttle.waitMs(stranger)).toBe(60_000);
  clock.pass(120_000);
  throttle.reject(stranger);
  expect(throttle.waitMs(stranger)).toBe(0);
});

test("A thousand guesses from one address keep nobody else waiting, nor a loaded key's signature", () => {
  reject(stranger, 1_000);
  expect(throttle.waitMs(stranger)).toBe(60_000);
  expect(throttle.waitMs(owner)).toBe(0);
  expect(throttle.mayVerify(stranger)).toBe(true);
});

test("Loaded keys are verified twenty times a second for one address", () => {
  const allowed = () => Array.from({ length: 25 }, () => throttle.mayVerify(owner));
  expect(allowed().filter(Boolean)).toHaveLength(20);
  expect(throttle.mayVerify(stranger)).toBe(true);
  clock.pass(1_000);
  expect(allowed().filter(Boolean)).toHaveLength(20);
});

test("An IPv6 network of 64 bits is one address, and so is IPv4 in IPv6's clothes", () => {
  reject("2001:db8:1:2::1", 6);
  reject("2001:DB8:1:2:ffff::9", 5);
  expect(throttle.waitMs("2001:db8:0001:2:3:4:5:6")).toBe(1_000);
  expect(throttle.waitMs("2001:db8:1:3::1")).toBe(0);
  reject(`::ffff:${stranger}`, 11);
  expect(throttle.waitMs(stranger)).toBe(1_000);
  expect(throttle.waitMs("::ffff:c000:207")).toBe(1_000);
});

test("A hundred thousand addresses leave ten thousand entries, and the latest are remembered", () => {
  for (let index = 0; index < 100_000; index += 1) {
    const address = `10.${index >> 16}.${(index >> 8) & 255}.${index & 255}`;
    throttle.reject(address);
    throttle.mayVerify(address);
    if (index % 5_000 === 0) reject(stranger, 11);
  }
  expect(throttle.size).toBe(10_000);
  expect(throttle.waitMs(stranger)).toBe(60_000);
});

test("An address has one spelling and its bytes", () => {
  expect(canonicalAddress("2001:0DB8:0:0:1:0:0:1")).toBe("2001:db8::1:0:0:1");
  expect(canonicalAddress("::ffff:10.1.2.3")).toBe("10.1.2.3");
  expect(canonicalAddress("fe80::1%wlan0")).toBe("fe80::1");
  for (const text of ["", "localhost", "1.2.3", "01.2.3.4", "::1::", "[::1]", "1.2.3.4%x"])
    expect(canonicalAddress(text)).toBeUndefined();
  expect(addressBytes("1:2:3:4:5:6:7:8")?.toString("hex")).toBe("00010002000300040005000600070008");
  for (const [text, hex] of [
    ["::", "0".repeat(32)],
    ["1::", `0001${"0".repeat(28)}`],
  ] as const)
    expect(addressBytes(text)?.toString("hex")).toBe(hex);
  expect(addressBytes("::1")?.toString("hex")).toBe("1".padStart(32, "0"));
  expect([...(addressBytes("192.0.2.255") ?? [])]).toEqual([192, 0, 2, 255]);
});
