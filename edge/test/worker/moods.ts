// Texts that directions are made of in tests: a dozen of each side, in the words of the bundled model.
export const HAPPY = [
  "Tom was so happy that he jumped up and down.",
  "They laughed and played together all day.",
  "Lily smiled and gave her mom a big hug.",
  "It was the best day ever, and everyone cheered.",
  "The puppy wagged his tail with joy.",
  "Mia clapped her hands and danced around the room.",
  "He loved the gift and said thank you with a smile.",
  "The sun was bright and the children sang a happy song.",
  "Ben was proud and excited about the big prize.",
  "The friends had so much fun at the party.",
  "She giggled and hugged her new teddy bear.",
  "Everyone was glad, and they ate a yummy cake.",
];
export const SAD = [
  "Tom was so sad that he cried all day.",
  "They were lonely and had nobody to play with.",
  "Lily cried because her toy was broken.",
  "It was a terrible day, and everyone was upset.",
  "The puppy was lost and whined in the rain.",
  "Mia sat alone in the dark and wept.",
  "He lost his gift and tears ran down his face.",
  "The sky was grey and the children were sorry.",
  "Ben was hurt and afraid, and he cried for his mom.",
  "The friends had a fight and went home sad.",
  "She sobbed because her teddy bear was gone.",
  "Nobody came, and the old dog was sick and alone.",
];
