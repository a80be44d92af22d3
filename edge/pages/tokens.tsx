// A text with what a feature does on each of its tokens: the stronger, the darker; the number shows when one points at it.

export const Tokens = (props: { tokens: readonly string[]; values: readonly number[]; max: number }) => (
  <p class="tokens">
    {props.tokens.map((token, i) => {
      const value = props.values[i] ?? 0;
      return (
        <span class={`a${levelOf(value, props.max)}`} title={value === 0 ? undefined : value.toPrecision(4)}>
          {token.replace(/\n/g, "↵\n")}
        </span>
      );
    })}
  </p>
);

/** 0 for nothing up to 9 for `max`; values below 0 are darkest at -max and have the same shades. */
const levelOf = (value: number, max: number): number => (max <= 0 || value === 0 ? 0 : Math.min(9, Math.ceil((9 * Math.abs(value)) / max)));
