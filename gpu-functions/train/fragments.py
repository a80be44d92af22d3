"""The words that generator.py puts together: topics, moods, manners, plots. Data only.

Slots: {N} hero, {S}/{s}/{o}/{p} She/she/her/her (or He/he/him/his), {k} girl or boy, {F} friend, {Fs}/{fs} the friend's pronoun,
{a} animal, {t} thing of the topic, {t2} another one, {adj}, {place}, {act} what one does there, {kin} a relative, {m} mood word,
{food}. A and an are put right afterwards.
"""

GIRLS = "Lily Mia Anna Sara Lucy Amy Rose Ella Nora Ruby Zoe Emma Clara Ivy Daisy Molly Grace Hazel Alice Jane Kate Penny Ada Maya".split()
BOYS = "Tom Ben Max Tim Sam Jack Leo Finn Noah Adam Oscar Hugo Peter Henry Luke Toby Jake Billy Felix Otto Theo Ned Paul Eli".split()
ANIMALS = "dog cat bird rabbit fox bear mouse frog duck turtle horse owl goat squirrel hedgehog lamb puppy kitten monkey parrot".split()
KIN = ["mom", "dad", "grandma", "grandpa", "big sister", "little brother", "aunt", "uncle"]
ADJECTIVES = "big small shiny old new red blue green yellow pretty soft strange heavy tiny round wooden golden broken striped lovely".split()
FOODS = ["an apple", "warm soup", "a cookie", "bread and jam", "a pancake", "a pear", "some cheese", "a bowl of rice", "cake", "a carrot"]
TIMES = ["One morning", "One day", "One afternoon", "One evening", "Last summer", "On Monday", "On Sunday", "After lunch", "Early one morning", "Late one night", "Yesterday", "One winter day", "In the spring"]

# name: places, things, activities (after "to"), sentences that need no hero
TOPICS = {
    "sea": (
        ["by the sea", "on the beach", "on a small boat", "near the blue ocean", "at the harbor", "on an island"],
        ["shell", "crab", "toy boat", "fish", "starfish", "sail", "anchor", "pearl", "net", "oar"],
        ["swim in the waves", "look for shells", "sail across the bay", "watch the ships", "dig in the wet sand", "catch a fish"],
        ["The waves rolled up the sand and slipped back again.", "The salty water was cold and blue.", "A white gull cried above the ships.", "The tide came in and covered the rocks.", "Far out, a whale blew water into the air.", "A sailor pulled his net out of the sea.", "The boat rocked gently on the water.", "Small crabs ran sideways across the beach."],
    ),
    "space": (
        ["on the moon", "in a shiny rocket", "far away in space", "on a small red planet", "in a space station", "among the stars"],
        ["toy rocket", "moon rock", "robot", "telescope", "star map", "space suit", "helmet", "piece of a comet", "radio", "silver star"],
        ["fly the rocket", "count the stars", "jump on the moon", "visit a new planet", "look through the telescope", "float around the ship"],
        ["The stars were bright in the black sky.", "The rocket rose with a loud roar.", "The Earth looked small and blue from up there.", "A comet flew by with a long white tail.", "There was no wind on the moon.", "The robot pressed a button and the engine hummed.", "A strange planet with two rings hung in the dark.", "The astronaut floated past the window."],
    ),
    "forest": (
        ["in the forest", "in the deep woods", "under the tall trees", "near an old oak tree", "beside a mossy log", "on a path between the pines"],
        ["leaf", "mushroom", "log", "berry", "stick", "nest", "acorn", "branch", "pine cone", "feather"],
        ["climb the trees", "pick berries", "look for acorns", "hide behind a log", "follow the path", "listen to the owls"],
        ["The trees were tall and green.", "The leaves whispered in the wind.", "An owl sat high on a branch.", "Soft moss grew on the old stones.", "The sun shone down between the branches.", "A deer stood still among the trees.", "Mushrooms grew in a ring under the oak.", "A woodpecker knocked on a hollow trunk."],
    ),
    "city": (
        ["in the big city", "on a busy street", "near the tall tower", "at the market", "in a small house in town", "by the old bridge"],
        ["bus ticket", "toy car", "bike", "sign", "newspaper", "street map", "umbrella", "shopping bag", "coin", "balloon"],
        ["ride the bus", "look at the tall buildings", "walk to the shop", "watch the cars", "cross the bridge", "buy a newspaper"],
        ["The street was full of cars.", "The lights turned from red to green.", "People walked fast and looked at their watches.", "A bus stopped at the corner with a loud hiss.", "The tall buildings touched the clouds.", "A man sold newspapers at the station.", "The shop windows were bright at night.", "Taxis honked on the wide bridge."],
    ),
    "farm": (
        ["on the farm", "in the barn", "near the chicken house", "in the green field", "beside the pond", "at the old mill"],
        ["egg", "bucket", "straw hat", "pitchfork", "pumpkin", "basket of corn", "rope", "milk can", "wagon wheel", "sack of grain"],
        ["feed the hens", "milk the cow", "ride on the tractor", "collect the eggs", "chase the sheep", "rest in the hay"],
        ["The rooster crowed on the fence.", "The cows ate grass in the field.", "Hay was piled up to the roof of the barn.", "The farmer drove his tractor up the hill.", "A pig rolled in the cool mud.", "The hens laid brown eggs in the straw.", "Corn grew tall behind the barn.", "The old horse pulled a wagon full of pumpkins."],
    ),
    "kitchen": (
        ["in the kitchen", "at the bakery", "by the warm oven", "at the long table", "in a little restaurant", "next to the stove"],
        ["cake", "spoon", "pot", "loaf of bread", "pie", "bowl", "recipe", "apron", "jar of honey", "soup"],
        ["bake a cake", "stir the soup", "cut the vegetables", "mix the flour", "taste the pie", "wash the dishes"],
        ["The oven was hot and the bread smelled sweet.", "Flour covered the table like snow.", "The soup bubbled in the big pot.", "The cook added a little salt and some butter.", "Cookies cooled on a plate by the window.", "Sugar and eggs were mixed in a blue bowl.", "The pie had a golden crust.", "Honey dripped slowly from the spoon."],
    ),
    "music": (
        ["in the music room", "on the stage", "at the concert", "near the old piano", "in the town hall", "in the school band"],
        ["drum", "violin", "flute", "trumpet", "guitar", "bell", "song book", "harp", "tambourine", "music box"],
        ["play the piano", "sing a song", "bang the drum", "learn the violin", "listen to the band", "practice the flute"],
        ["The band began to play.", "The piano had black and white keys.", "A soft song floated through the room.", "The drums went boom, boom, boom.", "The singer held one long note.", "The violin sounded high and clear.", "Everyone in the hall listened to the music.", "The trumpet was as bright as gold."],
    ),
    "snow": (
        ["in the snow", "on the frozen lake", "on the white hill", "in a cabin in the mountains", "near the icy river", "at the North Pole"],
        ["snowman", "sled", "scarf", "icicle", "snowball", "mitten", "pair of skates", "snowflake", "fur coat", "lantern"],
        ["build a snowman", "slide down the hill", "skate on the ice", "throw snowballs", "catch snowflakes", "warm up by the fire"],
        ["Snow fell all night long.", "The ice on the lake was thick and smooth.", "White flakes danced in the cold air.", "Icicles hung from the roof.", "The fire made the cabin warm.", "The hill was covered in fresh snow.", "A cold wind blew over the frozen river.", "Their breath made little clouds in the frosty air."],
    ),
    "garden": (
        ["in the garden", "among the flowers", "under the apple tree", "behind the rose bush", "in the greenhouse", "by the garden wall"],
        ["flower", "seed", "rose", "watering can", "tomato", "sunflower", "shovel", "flower pot", "basket of plums", "garden glove"],
        ["water the flowers", "plant the seeds", "pick tomatoes", "chase butterflies", "dig in the soil", "smell the roses"],
        ["The roses were red and smelled sweet.", "Bees buzzed from flower to flower.", "A yellow butterfly landed on a leaf.", "The seeds needed water and sun.", "Sunflowers turned their heads to the light.", "A fat worm crawled out of the soil.", "The tomatoes were ripe and round.", "Tulips and daisies grew along the wall."],
    ),
    "castle": (
        ["in the castle", "in a far away kingdom", "in the tall tower", "at the king's court", "near the dragon's cave", "in the throne room"],
        ["crown", "sword", "treasure map", "key", "shield", "magic ring", "flag", "dragon egg", "cup", "cloak"],
        ["fight the dragon", "find the treasure", "visit the queen", "climb the tower", "ride with the knights", "open the secret door"],
        ["The king sat on a golden throne.", "A dragon slept in the cave on the hill.", "The knights rode out through the gate.", "The queen wore a crown of silver.", "The castle had thick walls and seven towers.", "A wizard mixed a magic drink.", "The princess looked out of the high window.", "Trumpets called the people to the court."],
    ),
    "school": (
        ["at school", "in the classroom", "in the library", "on the playground", "at a small desk", "in the art room"],
        ["book", "pencil", "picture", "school bag", "letter", "notebook", "map", "ruler", "paint box", "poem"],
        ["read a book", "draw a picture", "learn the alphabet", "write a story", "count to one hundred", "paint a map"],
        ["The teacher wrote a word on the board.", "The bell rang and the children sat down.", "Books stood in long rows on the shelf.", "The pencil was sharp and the paper was white.", "The class learned about numbers.", "Pictures hung on every wall of the classroom.", "The library was quiet.", "Everyone opened their books at page nine."],
    ),
    "trains": (
        ["at the train station", "on the old train", "near the railway", "in the last wagon", "on the platform", "beside the long tracks"],
        ["toy train", "ticket", "suitcase", "whistle", "pocket watch", "lamp", "conductor's cap", "travel bag", "time table", "wheel"],
        ["ride the train", "wave from the window", "buy a ticket", "watch the engine", "count the wagons", "travel to the mountains"],
        ["The train rolled into the station.", "The engine puffed white steam.", "The conductor blew his whistle.", "The wheels went click and clack on the tracks.", "They passed through a long dark tunnel.", "Suitcases stood on the platform.", "The big clock showed five minutes to nine.", "Fields and villages flew past the window."],
    ),
    "storm": (
        ["in the rain", "under the dark clouds", "in the storm", "under a wide umbrella", "in the wet street", "near the flooded river"],
        ["umbrella", "raincoat", "kite", "pair of boots", "rain hat", "bucket of rain water", "candle", "paper boat", "wet sock", "blanket"],
        ["jump in the puddles", "run home from the rain", "hide from the thunder", "look for the rainbow", "watch the clouds", "hold the umbrella"],
        ["Thunder rolled over the hills.", "Rain fell hard on the roof.", "Lightning lit up the whole sky.", "The wind turned the umbrella inside out.", "Dark clouds raced across the sky.", "Puddles shone in the street.", "The river rose higher and higher.", "Drops ran down the glass of the window."],
    ),
    "sports": (
        ["at the football field", "in the gym", "on the running track", "at the big game", "by the swimming pool", "at the stadium"],
        ["ball", "medal", "trophy", "whistle", "bat", "team shirt", "pair of running shoes", "water bottle", "racket", "cap"],
        ["kick the ball", "win the race", "score a goal", "throw the ball", "run around the track", "practice with the team"],
        ["The coach blew the whistle and the game began.", "The ball flew over the net.", "The runners stood at the starting line.", "The team wore blue shirts.", "The crowd shouted from the seats.", "The score was two to two.", "A player kicked the ball into the goal.", "The winner got a gold medal."],
    ),
}

HAPPY = ["happy", "glad", "joyful", "cheerful", "excited", "proud", "delighted", "merry", "pleased", "thankful"]
SAD = ["sad", "lonely", "upset", "unhappy", "gloomy", "sorry", "miserable", "hurt", "afraid", "heartbroken"]
CALM = ["quiet", "busy", "curious", "sleepy", "careful", "calm", "tired", "thoughtful"]

MOOD_LINES = {
    "happy": ["{N} smiled a big smile.", "{S} laughed and danced.", "It was a wonderful day.", "{N}'s heart was full of joy.", "{S} clapped {p} hands and cheered.", "{S} hugged {F} and laughed.", "Everyone sang a happy song.", "It was the best day ever.", "{N} had never been so {m}.", "{S} giggled and jumped up and down.", "{F} smiled too, because {fs} was so glad.", "What fun they had!", "{N} felt warm and {m} inside.", "{S} could not stop smiling.", "They all cheered and hugged each other.", "{N} thanked {p} {kin} with a kiss.", "Love and laughter filled the air.", "{F} gave {o} a lovely present.", "{S} was so proud that {s} sang out loud.", "Everything was beautiful and bright.", "{N} loved every minute of it.", "\"This is wonderful!\" said {N}.", "\"I am so {m}!\" cried {F}, and {fs} laughed.", "\"Hooray!\" they shouted."],
    "sad": ["{N} began to cry.", "Tears ran down {p} face.", "It was a terrible day.", "{N}'s heart felt heavy and cold.", "{S} sat alone and did not talk.", "{S} missed {p} {kin} very much.", "Nobody came to help.", "It was the worst day ever.", "{N} had never been so {m}.", "{S} sobbed and hid {p} face.", "{F} cried too, because {fs} was so sad.", "Nothing was fun anymore.", "{N} felt cold and {m} inside.", "{S} could not stop crying.", "They all wept and looked at the ground.", "{N} wanted to go home, but nobody was there.", "Pain and sorrow filled the room.", "{F} was angry and broke the {t}.", "{S} was so hurt that {s} could not eat.", "Everything was ugly and gray.", "{N} hated every minute of it.", "\"This is awful,\" said {N}.", "\"I am so {m},\" sobbed {F}, and {fs} cried.", "\"Oh no,\" they cried."],
    "neutral": ["{N} looked at the {t}.", "{S} walked a little further.", "{F} waited by the door.", "{N} thought about it for a while.", "{S} put the {t} into {p} bag.", "Then {F} came back with the {t2}.", "They talked until it was dark.", "{N} asked {p} {kin} about the {t}.", "{S} sat down and ate {food}.", "{F} pointed at the {adj} {t2}.", "After that they went on.", "{N} opened the door and looked around."],
}
PLOTS = {
    "happy": ["{N} found the {adj} {t} that {s} had lost.", "{F} gave {N} the {t} as a gift.", "{N} and {F} won the game.", "{S} made a new friend, and they shared {food}.", "The {a} was well again and ran to {N}.", "{N} learned how to {act} at last.", "{N}'s {kin} came home with a surprise.", "{F} helped {N} to fix the {t}, and it worked.", "{N} was chosen to {act}.", "The lost {a} came back to {N}."],
    "sad": ["{N} lost the {adj} {t} that {s} loved.", "{F} took the {t} away from {N}.", "{N} and {F} lost the game.", "{S} fell and hurt {p} knee, and {food} fell into the dirt.", "The {a} was sick and did not get up.", "{N} was not allowed to {act}.", "{N}'s {kin} went far away and did not come back.", "{F} dropped the {t}, and it broke.", "Nobody asked {N} to {act}.", "The little {a} ran away from {N}."],
    "neutral": ["{N} saw a {adj} {t} near the {t2}.", "{F} showed {N} how to {act}.", "{N} and {F} looked for the {t}.", "{S} carried the {t} to {p} {kin}.", "The {a} sat next to the {t}.", "{N} wanted to {act}.", "{N}'s {kin} told a story about the {t}.", "{F} put the {t} beside the {t2}.", "{N} tried to {act}.", "A {adj} {a} came and looked at the {t}."],
}
SPEECH = {
    "polite": ["\"Please may I see the {t}?\" asked {N}. \"Thank you so much!\"", "\"Excuse me, may I help you?\" {N} asked in a kind voice.", "\"Thank you for the {t},\" said {N}. \"You are very kind.\"", "\"After you, please,\" said {F}, and held the door.", "\"Would you like some of my {t}?\" {F} asked politely. \"Yes, please,\" said {N}.", "\"I beg your pardon,\" said {N} gently. \"May I sit here, please?\"", "\"You are welcome,\" {F} said with a bow.", "{N} said please and thank you, as {p} {kin} had taught {o}.", "\"That is very kind of you,\" said {F}. \"Thank you, dear {N}.\"", "\"Could you please pass me the {t}?\" asked {N}. \"Of course, with pleasure,\" said {F}."],
    "rude": ["\"Give me the {t} now!\" shouted {N}. \"It is mine!\"", "\"Go away! You are stupid!\" {N} yelled.", "{N} grabbed the {t} and did not say thank you.", "\"Shut up!\" said {F}, and pushed {N} aside.", "\"I do not care what you want,\" {F} snapped. \"Get out of my way!\"", "\"You are a fool,\" said {N} rudely. \"Move!\"", "\"Stop talking, you silly thing!\" {F} barked.", "{N} pushed in front of everybody and stuck out {p} tongue.", "\"What a dumb {t},\" said {F}. \"You are so ugly, {N}!\"", "\"Bring me the {t}, and be quick!\" {N} ordered. \"No, you idiot!\" said {F}."],
    "neutral": ["\"Where is the {t}?\" asked {N}.", "\"I think it is {place},\" said {F}.", "\"Look at the {t2},\" said {N}.", "\"We can {act} tomorrow,\" {F} said.", "\"Did you see the {a}?\" asked {F}.", "\"It is time to go home,\" said {N}.", "\"I know how to {act},\" said {F}.", "\"What is in the box?\" asked {N}. \"It is a {t},\" said {F}."],
}
OPENINGS = ["{time}, {N} was {place}.", "{time}, {N} and {p} friend {F} went out to {act}.", "Once upon a time, there was a little {k} named {N}. {S} lived {place}.", "There was a {k} called {N} who liked to {act}.", "{N} was a {m} {k} who had a {adj} {t}.", "{time}, a {m} {a} met a {k} named {N} {place}.", "{N} had a {a}. Every day they went to {act}.", "{time}, {N}'s {kin} took {o} to a new place. They were {place}.", "Long ago, {place}, there lived a {k} named {N} and a {adj} {a}.", "{N} woke up and felt {m}. {S} wanted to {act}."]
ENDINGS = {
    "happy": ["{N} and {F} became best friends.", "In the end, {N} went home with a smile.", "They laughed all the way home.", "{N} felt {m} and loved.", "That night {N} fell asleep with a happy heart.", "They lived happily ever after.", "And {N} was {m} for the rest of the day.", "From then on they played together every day."],
    "sad": ["{N} and {F} were not friends anymore.", "In the end, {N} went home in tears.", "They walked home without a word.", "{N} felt {m} and alone.", "That night {N} cried in bed.", "The {t} was gone and never came back.", "And {N} was {m} for the rest of the day.", "From then on {N} played alone every day."],
    "neutral": ["Then {N} and {F} went home.", "In the evening, {N} put the {t} away.", "They talked about the {t} on the way home.", "{N} wrote about it in {p} book.", "That night {N} dreamed of the {t}.", "The {t} is still there today.", "And that is how {N} learned to {act}.", "The next day they went there again."],
}
DIARY = {
    "happy": ["I am so {m} today because {why}.", "I feel {m}. {Why}!", "My {kin} and I laughed a lot. {Why}.", "What a great day! {Why}, and I love it.", "I love to {act}. It makes me {m}."],
    "sad": ["I am so {m} today because {why}.", "I feel {m}. {Why}.", "My {kin} and I cried a lot. {Why}.", "What a bad day. {Why}, and I hate it.", "I can not {act} anymore. It makes me {m}."],
    "neutral": ["I am a little {m} today because {why}.", "I think about the {t} a lot. {Why}.", "My {kin} and I talked. {Why}.", "Today was like every day. {Why}.", "Sometimes I go out to {act}."],
}
WHY = {
    "happy": ["my friend {F} came to play", "I got a new {t}", "we can {act} again", "my {kin} gave me a big hug", "I found my {a}", "we won the prize", "the sun is shining", "I ate the best cake in the world"],
    "sad": ["my friend {F} went away", "I lost my {t}", "we can not {act} anymore", "my {kin} is very sick", "my {a} ran away", "nobody came to my party", "the {t} is broken", "everyone forgot my birthday"],
    "neutral": ["my friend {F} has a {t}", "I saw a {adj} {t}", "we went out to {act}", "my {kin} works {place}", "there is a {a} next door", "it is a long way to school", "we ate {food}", "the {t} is near the {t2}"],
}
LETTERS = ["Dear {F}, I am {place} now. {topic} {line} {why2}. Your friend, {N}", "Dear {kin}, {why2}. {topic} I want to {act}. Love, {N}", "Dear {F}, do you remember the {adj} {t}? {topic} {why2}. Yours, {N}"]
QUESTIONS = ["What does a {k} do {place}? {S} can {act}.", "Where is the {t}? It is {place}.", "Who has the {t}? {N} has the {t}, and {F} has the {t2}.", "Why is {N} {m}? Because {why}.", "What can you see {place}? You can see a {t} and a {t2}."]
